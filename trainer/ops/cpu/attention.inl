// Part of kernels.inl, inside its namespace.
void softmax(float* scores, int64_t keys, int64_t columns, int64_t ld, const int32_t* first,
             const int32_t* last, float* peak, float* total, float* rescale) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    const Ints from = *reinterpret_cast<const LooseInts*>(first + c);
    const Ints to = *reinterpret_cast<const LooseInts*>(last + c);
    const Floats old = load16(peak + c);
    Floats top = old;
    for (int64_t k = 0; k < keys; ++k) {
      const Ints key = Ints{} + static_cast<int32_t>(k);
      const Floats s = load16(scores + k * ld + c);
      top = (key >= from) & (key < to) & (s > top) ? s : top;
    }
    // A column that has seen no key yet keeps -inf; its exponent must not be inf - inf.
    const Floats base = top == -INFINITY ? Floats{} : top;
    Floats sums{};
    for (int64_t k = 0; k < keys; ++k) {
      const Ints key = Ints{} + static_cast<int32_t>(k);
      const Floats e = exp16(load16(scores + k * ld + c) - base);
      const Floats p = (key >= from) & (key < to) ? e : Floats{};
      sums += p;
      store16(scores + k * ld + c, p);
    }
    const Floats factor = old == -INFINITY ? Floats{} : exp16(old - base);
    store16(rescale + c, factor);
    store16(total + c, load16(total + c) * factor + sums);
    store16(peak + c, top);
  }
}

void scale_columns(float* x, int64_t rows, int64_t columns, int64_t ld, const float* factor) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; c += kLanes)
      store16(x + r * ld + c, load16(x + r * ld + c) * load16(factor + c));
  }
}

void softmax_backward(float* scores, float* dscores, int64_t keys, int64_t columns, int64_t ld,
                      const int32_t* first, const int32_t* last, const float* lse,
                      const float* delta) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    const Ints from = *reinterpret_cast<const LooseInts*>(first + c);
    const Ints to = *reinterpret_cast<const LooseInts*>(last + c);
    const Floats base = load16(lse + c);
    const Floats shift = load16(delta + c);
    for (int64_t k = 0; k < keys; ++k) {
      const Ints key = Ints{} + static_cast<int32_t>(k);
      const Floats e = exp16(load16(scores + k * ld + c) - base);
      const Floats p = (key >= from) & (key < to) ? e : Floats{};
      store16(scores + k * ld + c, p);
      store16(dscores + k * ld + c, p * (load16(dscores + k * ld + c) - shift));
    }
  }
}

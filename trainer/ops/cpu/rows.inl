// Part of kernels.inl, inside its namespace.
template <class T>
void rms_norm(const T* x, int64_t stride_x, const T* weight, T* y, int64_t stride_y, float* rstd,
              int64_t rows, int64_t heads, int64_t dim, float eps) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < heads; ++h) {
      const T* in = x + r * stride_x + h * dim;
      T* out = y + r * stride_y + h * dim;
      Floats squares{};
      for (int64_t i = 0; i < dim; i += kLanes) {
        const Floats v = get(in, i, dim);
        squares += v * v;
      }
      const float scale = 1.0f / std::sqrt(sum(squares) / static_cast<float>(dim) + eps);
      rstd[r * heads + h] = scale;
      for (int64_t i = 0; i < dim; i += kLanes)
        put(out, i, dim, get(in, i, dim) * scale * get(weight, i, dim));
    }
  }
}

template <class T>
void rms_norm_backward(const T* dy, int64_t stride_dy, const T* x, int64_t stride_x,
                       const T* weight, const float* rstd, const T* dres, T* dx, int64_t stride_dx,
                       float* dweight, int64_t rows, int64_t heads, int64_t dim) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < heads; ++h) {
      const T* in = x + r * stride_x + h * dim;
      const T* dout = dy + r * stride_dy + h * dim;
      T* din = dx + r * stride_dx + h * dim;
      const float scale = rstd[r * heads + h];
      Floats dots{};
      for (int64_t i = 0; i < dim; i += kLanes) {
        const Floats xhat = get(in, i, dim) * scale;
        const Floats d = get(dout, i, dim);
        dots += d * get(weight, i, dim) * xhat;
        put(dweight, i, dim, get(dweight, i, dim) + d * xhat);
      }
      const float mean = sum(dots) / static_cast<float>(dim);
      for (int64_t i = 0; i < dim; i += kLanes) {
        Floats d =
            (get(dout, i, dim) * get(weight, i, dim) - get(in, i, dim) * scale * mean) * scale;
        if (dres != nullptr) d += get(dres + r * stride_dx + h * dim, i, dim);
        put(din, i, dim, d);
      }
    }
  }
}

// The elements from `first` on alone where a row of `dim` ends within the group.
inline Floats within(Floats v, int64_t first, int64_t dim) {
  for (int64_t c = dim - first; c < kLanes; ++c) v[c] = 0;
  return v;
}

template <class T>
void layer_norm(const T* x, const T* weight, const T* bias, T* y, float* mean, float* rstd,
                int64_t rows, int64_t dim, float eps) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* in = x + r * dim;
    Floats total{};
    for (int64_t i = 0; i < dim; i += kLanes) total += get(in, i, dim);
    const float middle = sum(total) / static_cast<float>(dim);
    Floats squares{};
    for (int64_t i = 0; i < dim; i += kLanes) {
      const Floats v = within(get(in, i, dim) - middle, i, dim);
      squares += v * v;
    }
    const float scale = 1.0f / std::sqrt(sum(squares) / static_cast<float>(dim) + eps);
    mean[r] = middle;
    rstd[r] = scale;
    for (int64_t i = 0; i < dim; i += kLanes) {
      const Floats xhat = (get(in, i, dim) - middle) * scale;
      put(y + r * dim, i, dim, xhat * get(weight, i, dim) + get(bias, i, dim));
    }
  }
}

template <class T>
void layer_norm_backward(const T* dy, const T* x, const T* weight, const float* mean,
                         const float* rstd, const T* dres, T* dx, float* dweight, int64_t rows,
                         int64_t dim) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* in = x + r * dim;
    const T* dout = dy + r * dim;
    Floats total{};
    Floats dots{};
    for (int64_t i = 0; i < dim; i += kLanes) {
      const Floats xhat = (get(in, i, dim) - mean[r]) * rstd[r];
      const Floats d = get(dout, i, dim);
      const Floats weighted = d * get(weight, i, dim);
      total += weighted;
      dots += weighted * xhat;
      put(dweight, i, dim, get(dweight, i, dim) + d * xhat);
    }
    const float middle = sum(total) / static_cast<float>(dim);
    const float along = sum(dots) / static_cast<float>(dim);
    for (int64_t i = 0; i < dim; i += kLanes) {
      const Floats xhat = (get(in, i, dim) - mean[r]) * rstd[r];
      Floats d = (get(dout, i, dim) * get(weight, i, dim) - middle - xhat * along) * rstd[r];
      if (dres != nullptr) d += get(dres + r * dim, i, dim);
      put(dx + r * dim, i, dim, d);
    }
  }
}

template <class T>
void rope(T* x, int64_t stride, const float* cos, const float* sin, int64_t rows, int64_t heads,
          int64_t dim, int64_t rot, float sign) {
  const int64_t half = rot / 2;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < heads; ++h) {
      T* a = x + r * stride + h * dim;
      T* b = a + half;
      for (int64_t i = 0; i < half; i += kLanes) {
        const Floats c = get(cos + r * half, i, half);
        const Floats s = get(sin + r * half, i, half) * sign;
        const Floats u = get(a, i, half);
        const Floats v = get(b, i, half);
        put(a, i, half, u * c - v * s);
        put(b, i, half, v * c + u * s);
      }
    }
  }
}

template <class T>
void swiglu(const T* gate_up, T* out, int64_t rows, int64_t dim) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* gate = gate_up + r * 2 * dim;
    const T* up = gate + dim;
    for (int64_t i = 0; i < dim; i += kLanes) {
      const Floats g = get(gate, i, dim);
      put(out + r * dim, i, dim, g / (1.0f + exp16(-g)) * get(up, i, dim));
    }
  }
}

template <class T>
void swiglu_backward(const T* dout, const T* gate_up, T* dgate_up, int64_t rows, int64_t dim) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* gate = gate_up + r * 2 * dim;
    const T* up = gate + dim;
    T* dgate = dgate_up + r * 2 * dim;
    T* dup = dgate + dim;
    for (int64_t i = 0; i < dim; i += kLanes) {
      const Floats g = get(gate, i, dim);
      const Floats d = get(dout + r * dim, i, dim);
      const Floats sigmoid = 1.0f / (1.0f + exp16(-g));
      put(dgate, i, dim, d * get(up, i, dim) * sigmoid * (1.0f + g * (1.0f - sigmoid)));
      put(dup, i, dim, d * g * sigmoid);
    }
  }
}

constexpr float kGeluSlope = 0.79788456080286535588f;  // sqrt(2 / pi)
constexpr float kGeluCubic = 0.044715f;

// Phi(x), or what stands for it with tanh: (1 + tanh u) / 2 = 1 / (1 + exp(-2 u)).
inline Floats normal_share(Floats x, bool tanh) {
  if (tanh) return 1.0f / (1.0f + exp16(-2.0f * kGeluSlope * (x + kGeluCubic * x * x * x)));
  Floats share{};
  for (int64_t c = 0; c < kLanes; ++c) share[c] = 0.5f * std::erfc(x[c] * -0.70710678118654752f);
  return share;
}

template <class T>
void gelu(const T* x, T* out, int64_t count, bool tanh) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const Floats v = get(x, i, count);
    put(out, i, count, v * normal_share(v, tanh));
  }
}

template <class T>
void gelu_backward(const T* dout, const T* x, T* dx, int64_t count, bool tanh) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const Floats v = get(x, i, count);
    const Floats share = normal_share(v, tanh);
    const Floats density =
        tanh ? share * (1.0f - share) * (2.0f * kGeluSlope * (1.0f + 3.0f * kGeluCubic * v * v))
             : exp16(-0.5f * v * v) * (0.5f * kGeluSlope);
    put(dx, i, count, get(dout, i, count) * (share + v * density));
  }
}

template <class T>
void column_sums(const T* x, int64_t stride, float* sums, int64_t rows, int64_t dim) {
  // A block of rows at a time: down a whole column every access would be a new page.
  constexpr int64_t kBlock = 64;
  for (int64_t first = 0; first < rows; first += kBlock) {
    const int64_t last = rows - first < kBlock ? rows : first + kBlock;
    for (int64_t i = 0; i < dim; i += kLanes) {
      Floats s = get(sums, i, dim);
      for (int64_t r = first; r < last; ++r) s += get(x + r * stride, i, dim);
      put(sums, i, dim, s);
    }
  }
}

template <class T>
void add(const T* x, float* accumulator, int64_t dim) {
  for (int64_t i = 0; i < dim; i += kLanes)
    put(accumulator, i, dim, get(accumulator, i, dim) + get(x, i, dim));
}

template <class T>
void softmax_gradient(const float* logits, float log_sum_exp, int64_t label, float scale, T* out,
                      int64_t dim) {
  for (int64_t i = 0; i < dim; i += kLanes) {
    Floats p = exp16(get(logits, i, dim) - log_sum_exp);
    if (label >= i && label < i + kLanes) p[label - i] -= 1.0f;
    put(out, i, dim, p * scale);
  }
}

template <class T>
void log_prob_gradient(const float* logits, float log_sum_exp, float entropy, int64_t label,
                       float dlog_prob, float dentropy, T* out, int64_t dim) {
  for (int64_t i = 0; i < dim; i += kLanes) {
    const Floats log_p = get(logits, i, dim) - log_sum_exp;
    Floats d = exp16(log_p) * (-dlog_prob - dentropy * (log_p + entropy));
    if (label >= i && label < i + kLanes) d[label - i] += dlog_prob;
    put(out, i, dim, d);
  }
}

SoftmaxRow softmax_row(const float* logits, int64_t dim) {
  Floats peaks = all(-INFINITY);
  for (int64_t i = 0; i + kLanes <= dim; i += kLanes) peaks = larger(load16(logits + i), peaks);
  float peak = -INFINITY;
  for (int64_t i = 0; i < kLanes; ++i) peak = peaks[i] > peak ? peaks[i] : peak;
  for (int64_t i = dim / kLanes * kLanes; i < dim; ++i) peak = logits[i] > peak ? logits[i] : peak;

  Floats totals{};
  Floats weighted{};
  Floats summed{};
  int64_t argmax = -1;
  for (int64_t i = 0; i < dim; i += kLanes) {
    Floats v = get(logits, i, dim) - peak;
    Floats e = exp16(v);
    if (dim - i < kLanes) {
      for (int64_t c = dim - i; c < kLanes; ++c) e[c] = v[c] = 0;
    }
    totals += e;
    weighted += e * v;
    summed += v;
  }
  for (int64_t i = 0; i < dim && argmax < 0; ++i) {
    if (logits[i] == peak) argmax = i;
  }
  const float total = sum(totals);
  const float log_total = std::log(total);
  return {.log_sum_exp = peak + log_total,
          .max = peak,
          .log_total = log_total,
          .entropy = log_total - sum(weighted) / total,
          .mean = peak + sum(summed) / static_cast<float>(dim),
          .argmax = argmax};
}

void exp_row(const float* logits, float peak, float* out, float* sums, int64_t dim) {
  for (int64_t begin = 0; begin < dim; begin += kExpBlock) {
    const int64_t end = dim - begin < kExpBlock ? dim : begin + kExpBlock;
    Floats total{};
    for (int64_t i = begin; i < end; i += kLanes) {
      const Floats v = get(logits, i, end);
      Floats e = v == -INFINITY ? Floats{} : exp16(v - peak);
      for (int64_t c = end - i; c < kLanes; ++c) e[c] = 0;
      put(out, i, end, e);
      total += e;
    }
    sums[begin / kExpBlock] = sum(total);
  }
}

// Part of kernels.inl, inside its namespace.

// log(1 + y) to 1e-7 relative, y in [0, 1]: 2 artanh(z) with z = y / (2 + y), at most 1/3, whose series
// is cut after z^13.
inline Floats log1p16(Floats y) {
  const Floats z = y / (2.0f + y);
  const Floats w = z * z;
  Floats p = all(1.0f / 13);
  p = p * w + 1.0f / 11;
  p = p * w + 1.0f / 9;
  p = p * w + 1.0f / 7;
  p = p * w + 1.0f / 5;
  p = p * w + 1.0f / 3;
  return 2.0f * z * (p * w + 1.0f);
}

template <class T>
float divergence(float* student, const SoftmaxRow& student_row, float* teacher,
                 const SoftmaxRow& teacher_row, float beta, float scale, T* out, int64_t dim) {
  const float log_of_student = std::log1p(-beta);  // shares of the mixture
  const float log_of_teacher = std::log(beta);
  Floats totals{};    // of the divergence
  Floats weighted{};  // sum S (log S - log M): what the softmax takes off the gradient
  for (int64_t i = 0; i < dim; i += kLanes) {
    // The maximum first: beside log_sum_exp, which is as large, a likely token's logarithm is lost.
    const Floats log_s = get(student, i, dim) - student_row.max - student_row.log_total;
    const Floats log_t = get(teacher, i, dim) - teacher_row.max - teacher_row.log_total;
    Floats s = exp16(log_s);
    Floats t = exp16(log_t);
    for (int64_t c = dim - i; c < kLanes; ++c) s[c] = t[c] = 0;
    Floats difference{};
    if (beta == 0) {
      totals += t * (log_t - log_s);
      s -= t;
    } else if (beta == 1) {
      difference = log_s - log_t;
      totals += s * difference;
      weighted += s * difference;
    } else {
      const Floats a = log_s + log_of_student;
      const Floats b = log_t + log_of_teacher;
      // In this form because both shares of a token may be too small for a float.
      const Floats log_m = larger(a, b) + log1p16(exp16(-larger(a - b, b - a)));
      difference = log_s - log_m;
      totals += beta * t * (log_t - log_m) + (1.0f - beta) * s * difference;
      weighted += s * difference;
    }
    put(student, i, dim, s);
    put(teacher, i, dim, difference);
  }
  if (out == nullptr) return sum(totals);
  const float mean = sum(weighted);
  const float factor = beta == 1 ? scale : scale * (1.0f - beta);
  for (int64_t i = 0; i < dim; i += kLanes) {
    const Floats s = get(student, i, dim);
    put(out, i, dim, beta == 0 ? s * scale : s * factor * (get(teacher, i, dim) - mean));
  }
  return sum(totals);
}

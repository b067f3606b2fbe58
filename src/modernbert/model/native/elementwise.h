/* What a training step does between its matrix products: rotary positions and GeGLU, with their
   gradients, each in one pass over memory. */

/* Rotate the first two thirds of [total][3][num_heads][HEAD], queries by `query_scale` too, and
   copy the values; `direction` is 1, or -1 for the gradient, whose scale is already in it. */
#define ROTATE(SUFFIX, ELEMENT)                                                                   \
    static void rotate_##SUFFIX(const ELEMENT *in, ELEMENT *out, const float *cosines,            \
                                const float *sines, long total, long num_heads,                   \
                                float query_scale, float direction, long num_threads) {           \
        _Pragma("omp parallel for num_threads(num_threads) schedule(static)")                     \
        for (long row = 0; row < total; row++) {                                                  \
            const ELEMENT *source = in + row * 3 * num_heads * HEAD;                              \
            ELEMENT *target = out + row * 3 * num_heads * HEAD;                                   \
            for (long head = 0; head < 2 * num_heads; head++) {                                   \
                __m512 scale = _mm512_set1_ps(head < num_heads ? query_scale : 1.0f);             \
                for (int i = 0; i < HEAD / 2; i += LANES) {                                       \
                    long at = head * HEAD + i;                                                    \
                    __m512 first = _mm512_mul_ps(load_##SUFFIX(source + at), scale);              \
                    __m512 second = _mm512_mul_ps(load_##SUFFIX(source + at + HEAD / 2), scale);  \
                    __m512 c = _mm512_loadu_ps(cosines + row * HEAD / 2 + i);                     \
                    __m512 s = _mm512_mul_ps(_mm512_loadu_ps(sines + row * HEAD / 2 + i),         \
                                             _mm512_set1_ps(direction));                          \
                    store_##SUFFIX(target + at, _mm512_fmsub_ps(first, c,                         \
                                                                _mm512_mul_ps(second, s)));       \
                    store_##SUFFIX(target + at + HEAD / 2,                                        \
                                   _mm512_fmadd_ps(second, c, _mm512_mul_ps(first, s)));          \
                }                                                                                 \
            }                                                                                     \
            memmove(target + 2 * num_heads * HEAD, source + 2 * num_heads * HEAD,                 \
                    num_heads * HEAD * sizeof(ELEMENT));                                          \
        }                                                                                         \
    }                                                                                             \
                                                                                                  \
    /* gelu(a) * b of the halves a, b of each row of [total][2 width]. */                         \
    static void geglu_##SUFFIX(const ELEMENT *in, ELEMENT *out, long total, long width,           \
                               long num_threads) {                                                \
        _Pragma("omp parallel for num_threads(num_threads) schedule(static)")                     \
        for (long row = 0; row < total; row++)                                                    \
            for (long i = 0; i < width; i += LANES) {                                             \
                __m512 a = load_##SUFFIX(in + row * 2 * width + i);                               \
                __m512 b = load_##SUFFIX(in + row * 2 * width + width + i);                       \
                store_##SUFFIX(out + row * width + i, _mm512_mul_ps(gelu_ps(a), b));              \
            }                                                                                     \
    }                                                                                             \
                                                                                                  \
    static void geglu_backward_##SUFFIX(const ELEMENT *in, const ELEMENT *gradient, ELEMENT *out, \
                                        long total, long width, long num_threads) {               \
        _Pragma("omp parallel for num_threads(num_threads) schedule(static)")                     \
        for (long row = 0; row < total; row++)                                                    \
            for (long i = 0; i < width; i += LANES) {                                             \
                __m512 bell, a = load_##SUFFIX(in + row * 2 * width + i);                         \
                __m512 b = load_##SUFFIX(in + row * 2 * width + width + i);                       \
                __m512 g = load_##SUFFIX(gradient + row * width + i);                             \
                __m512 below = normal_cdf_ps(a, &bell);                                           \
                __m512 slope = _mm512_fmadd_ps(                                                   \
                    _mm512_mul_ps(a, bell), _mm512_set1_ps(0.39894228040143267794f), below);      \
                store_##SUFFIX(out + row * 2 * width + i,                                         \
                               _mm512_mul_ps(_mm512_mul_ps(g, b), slope));                        \
                store_##SUFFIX(out + row * 2 * width + width + i,                                 \
                               _mm512_mul_ps(g, _mm512_mul_ps(a, below)));                        \
            }                                                                                     \
    }

ROTATE(f32, float)
#ifdef __AVX512BF16__
ROTATE(bf16, bf16)
#endif

void modernbert_rotate(const void *in, void *out, const float *cosines, const float *sines,
                       long total, long num_heads, float query_scale, float direction,
                       long is_bf16, long num_threads) {
#ifdef __AVX512BF16__
    if (is_bf16) {
        rotate_bf16(in, out, cosines, sines, total, num_heads, query_scale, direction, num_threads);
        return;
    }
#endif
    rotate_f32(in, out, cosines, sines, total, num_heads, query_scale, direction, num_threads);
}

void modernbert_geglu(const void *in, void *out, long total, long width, long is_bf16,
                      long num_threads) {
#ifdef __AVX512BF16__
    if (is_bf16) {
        geglu_bf16(in, out, total, width, num_threads);
        return;
    }
#endif
    geglu_f32(in, out, total, width, num_threads);
}

void modernbert_geglu_backward(const void *in, const void *gradient, void *out, long total,
                               long width, long is_bf16, long num_threads) {
#ifdef __AVX512BF16__
    if (is_bf16) {
        geglu_backward_bf16(in, gradient, out, total, width, num_threads);
        return;
    }
#endif
    geglu_backward_f32(in, gradient, out, total, width, num_threads);
}

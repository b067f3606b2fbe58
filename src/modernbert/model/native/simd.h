/* Sixteen floats at a time: conversions and the functions of the model. */

#ifndef MODERNBERT_SIMD_H
#define MODERNBERT_SIMD_H

#include <immintrin.h>
#include <stdint.h>

#define LANES 16
#define ALIGNED __attribute__((aligned(64)))
#define INLINE static inline __attribute__((always_inline))

typedef uint16_t bf16;

static const float LOG2_E = 1.44269504088896340736f;

/* A mask of the first `count` lanes, for any count. */
INLINE __mmask16 first_lanes(long count) {
    return count >= LANES ? 0xFFFF : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
}

INLINE __m512 widen(const bf16 *source) {
    __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)source));
    return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
}

#ifdef __AVX512BF16__
INLINE __m256i narrow(__m512 values) { return (__m256i)_mm512_cvtneps_pbh(values); }

INLINE void store_narrow(bf16 *target, __m512 values) {
    _mm256_storeu_si256((__m256i *)target, narrow(values));
}
#endif

/* 2^x to the precision of float32; 0 for very negative x. */
INLINE __m512 exp2_ps(__m512 x) {
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 rest = _mm512_sub_ps(x, whole); /* in [-1/2, 1/2] */
    __m512 sum = _mm512_set1_ps(1.535336188319500e-4f);
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.339887440266574e-3f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(9.618437357674640e-3f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(5.550332471162809e-2f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(2.402264791363012e-1f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(6.931472028550421e-1f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(sum, whole);
}

/* 2^x with a relative error below 1.1e-4, a twentieth of what rounding to bfloat16 costs. */
INLINE __m512 exp2_rough_ps(__m512 x) {
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 rest = _mm512_sub_ps(x, whole);
    __m512 sum = _mm512_set1_ps(5.500891591e-2f);
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(2.422109641e-1f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(6.932829301e-1f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(sum, whole);
}

/* The standard normal distribution function, within 1e-7: erf by Abramowitz and Stegun 7.1.26.
   Also gives exp(-x^2 / 2). */
INLINE __m512 normal_cdf_ps(__m512 x, __m512 *bell) {
    __m512 size = _mm512_abs_ps(x);
    __m512 square = _mm512_mul_ps(x, x);
    *bell = exp2_ps(_mm512_mul_ps(square, _mm512_set1_ps(-0.5f * 1.44269504088896340736f)));
    /* t = 1 / (1 + p |x| / sqrt 2), one Newton step from a 14-bit reciprocal */
    __m512 denominator = _mm512_fmadd_ps(
        size, _mm512_set1_ps(0.3275911f * 0.70710678118654752440f), _mm512_set1_ps(1.0f));
    __m512 t = _mm512_rcp14_ps(denominator);
    t = _mm512_mul_ps(t, _mm512_fnmadd_ps(denominator, t, _mm512_set1_ps(2.0f)));
    __m512 sum = _mm512_set1_ps(0.5f * 1.061405429f);
    sum = _mm512_fmadd_ps(sum, t, _mm512_set1_ps(0.5f * -1.453152027f));
    sum = _mm512_fmadd_ps(sum, t, _mm512_set1_ps(0.5f * 1.421413741f));
    sum = _mm512_fmadd_ps(sum, t, _mm512_set1_ps(0.5f * -0.284496736f));
    sum = _mm512_fmadd_ps(sum, t, _mm512_set1_ps(0.5f * 0.254829592f));
    __m512 tail = _mm512_mul_ps(_mm512_mul_ps(sum, t), *bell); /* P(X > |x|) */
    __mmask16 positive = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GE_OQ);
    return _mm512_mask_sub_ps(tail, positive, _mm512_set1_ps(1.0f), tail);
}

/* The exact (erf) GELU. */
INLINE __m512 gelu_ps(__m512 x) {
    __m512 bell;
    return _mm512_mul_ps(x, normal_cdf_ps(x, &bell));
}

#endif

/* Vectors: the narrow layer over which every kernel is written once.

   A variant of the library is this source built with one set of the compiler's flags. `floats` and
   `ints` hold LANES entries of 32 bits; they are vector types of GCC and clang, so + - * & | << work
   on them, a number beside a vector stands for a vector of it, and a cast keeps the bits. Each of the
   three headers defines the types, how large the tiles of registers are, and

       load store load_first broadcast         of floats in memory
       load_lanes store_lanes broadcast_lane   32 bits of whatever the kind of a product is
       multiply_add larger absolute nearest square_root reciprocal to_ints to_floats times_power_of_two
       where_negative keep_between             a choice for each lane
       sum_of largest_of transpose             across lanes
       dot_quads store_bytes                   int8: sums of four products; rows are stored with
                                               BYTE_OFFSET added to values within BYTE_LIMIT
       dot_pairs load_words store_bf16         where HAS_BF16: sums of two products */

#ifndef MODERNBERT_VECTOR_H
#define MODERNBERT_VECTOR_H

#include <stdint.h>

#define ALIGNED __attribute__((aligned(64)))
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))

/* Before a loop of constant length: without it GCC keeps the sums of a tile in memory. */
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

typedef uint16_t bf16;
typedef float unaligned_float __attribute__((aligned(1), may_alias));

#if defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "vector_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__)
#include "vector_avx2.h"
#elif defined(__aarch64__)
#include "vector_neon.h"
#else
#error "the kernels need AVX2 and FMA, AVX-512 or 64-bit ARM: see the flags in build.py"
#endif

#ifndef HAS_BF16
#define HAS_BF16 0
#endif

static const float LOG2_E = 1.44269504088896340736f;

/* The lanes of sums of products, as are dot_pairs and dot_quads. */
INLINE floats dot_singles(floats sum, ints a, ints b) {
    return multiply_add((floats)a, (floats)b, sum);
}

/* LANES values from entry `at` on, in memory that is float or bfloat16. */
INLINE floats load_value(int is_bf16, const void *from, long at) {
#if HAS_BF16
    if (is_bf16) return (floats)(load_words((const bf16 *)from + at) << 16);
#endif
    (void)is_bf16;
    return load((const float *)from + at);
}

INLINE void store_value(int is_bf16, void *to, long at, floats values) {
#if HAS_BF16
    if (is_bf16) {
        store_bf16((bf16 *)to + at, values);
        return;
    }
#endif
    (void)is_bf16;
    store((float *)to + at, values);
}

/* A polynomial, its highest coefficient first. */
INLINE floats polynomial(floats x, const float *coefficients, int count) {
    floats sum = broadcast(coefficients[0]);
    UNROLL for (int i = 1; i < count; i++)
        sum = multiply_add(sum, x, broadcast(coefficients[i]));
    return sum;
}

/* 2^x to the precision of float32; 0 for very negative x. */
INLINE floats exp2_of(floats x) {
    static const float terms[] = {1.535336188319500e-4f, 1.339887440266574e-3f,
                                  9.618437357674640e-3f, 5.550332471162809e-2f,
                                  2.402264791363012e-1f, 6.931472028550421e-1f, 1.0f};
    floats whole = nearest(x);
    return times_power_of_two(polynomial(x - whole, terms, 7), whole);
}

/* 2^x with a relative error below 1.1e-4, a twentieth of what rounding to bfloat16 costs. */
INLINE floats exp2_roughly(floats x) {
    static const float terms[] = {5.500891591e-2f, 2.422109641e-1f, 6.932829301e-1f, 1.0f};
    floats whole = nearest(x);
    return times_power_of_two(polynomial(x - whole, terms, 4), whole);
}

/* The standard normal distribution function, within 3e-7: erf by Abramowitz and Stegun 7.1.26.
   Also gives exp(-x^2 / 2). */
INLINE floats normal_cdf(floats x, floats *bell) {
    static const float terms[] = {0.5f * 1.061405429f, 0.5f * -1.453152027f, 0.5f * 1.421413741f,
                                  0.5f * -0.284496736f, 0.5f * 0.254829592f};
    const float slope = 0.3275911f * 0.70710678118654752440f;
    *bell = exp2_of(x * x * (-0.5f * LOG2_E));
    floats t = reciprocal(multiply_add(absolute(x), broadcast(slope), broadcast(1.0f)));
    floats tail = polynomial(t, terms, 5) * t * *bell; /* P(X > |x|) */
    return where_negative(x, tail, 1.0f - tail);
}

/* The exact (erf) GELU. */
INLINE floats gelu(floats x) {
    floats bell;
    return x * normal_cdf(x, &bell);
}

/* x / (1 + exp(-y)); below -44 the sigmoid of y counts as that of -44, which is 6e-20. */
INLINE floats times_sigmoid(floats x, floats y) {
    floats least = broadcast(-64.0f);
    return x * reciprocal(1.0f + exp2_of(-larger(y * LOG2_E, least)));
}

enum { GELU, GELU_TANH, SILU, RELU, RELU_SQUARED };

INLINE floats activate(long activation, floats x) {
    switch (activation) {
    case GELU_TANH: /* (1 + tanh(y)) / 2 is the sigmoid of 2y */
        return times_sigmoid(x, x * (2 * 0.79788456080286535588f) * (1.0f + 0.044715f * (x * x)));
    case SILU: return times_sigmoid(x, x);
    case RELU: return larger(broadcast(0), x); /* in this order a NaN stays one */
    case RELU_SQUARED: return x * larger(broadcast(0), x);
    default: return gelu(x);
    }
}

#endif

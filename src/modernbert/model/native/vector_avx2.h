/* The layer of vectors for AVX2 and FMA, with AVX-VNNI where it is. */

#include <immintrin.h>

#define LANES 8
#define PRODUCT_ROWS 6
#define PRODUCT_VECTORS 2
#define SCORE_ROWS 6
#define SCORE_VECTORS 2
#define SUM_ROWS 6
#define SUM_VECTORS 2

typedef __m256 floats;
typedef int ints __attribute__((vector_size(32), may_alias));

INLINE floats load(const float *from) { return _mm256_loadu_ps(from); }
INLINE void store(float *to, floats values) { _mm256_storeu_ps(to, values); }
INLINE floats broadcast(float value) { return _mm256_set1_ps(value); }
INLINE ints load_lanes(const void *from) { return (ints)_mm256_loadu_si256(from); }
INLINE void store_lanes(void *to, ints lanes) { _mm256_storeu_si256(to, (__m256i)lanes); }
INLINE ints broadcast_lane(const void *from) {
    return (ints)_mm256_set1_ps(*(const unaligned_float *)from);
}

INLINE floats multiply_add(floats a, floats b, floats sum) { return _mm256_fmadd_ps(a, b, sum); }
INLINE floats larger(floats a, floats b) { return _mm256_max_ps(a, b); }
INLINE floats absolute(floats x) { return _mm256_andnot_ps(broadcast(-0.0f), x); }
INLINE floats nearest(floats x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE ints to_ints(floats x) { return (ints)_mm256_cvtps_epi32(x); }
INLINE floats to_floats(ints x) { return _mm256_cvtepi32_ps((__m256i)x); }

INLINE float sum_of(floats x) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

INLINE float largest_of(floats x) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

/* The exponent is put together by hand; 2^-127 and less become 0. */
INLINE floats times_power_of_two(floats x, floats whole) {
    return x * (floats)((to_ints(larger(broadcast(-127.0f), whole)) + 127) << 23);
}

INLINE floats square_root(floats x) { return _mm256_sqrt_ps(x); }
INLINE floats reciprocal(floats x) { return 1.0f / x; }

INLINE floats where_negative(floats x, floats yes, floats no) {
    return _mm256_blendv_ps(no, yes, x);
}

/* All bits set in the lanes [first, end). */
INLINE __m256i lanes_between(long first, long end) {
    __m256i low = _mm256_set1_epi32(first < -1 ? -1 : first > LANES ? LANES : (int)first);
    __m256i high = _mm256_set1_epi32(end < 0 ? 0 : end > LANES ? LANES : (int)end);
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_andnot_si256(_mm256_cmpgt_epi32(low, lane), _mm256_cmpgt_epi32(high, lane));
}

INLINE floats load_first(const float *from, long count) {
    return _mm256_maskload_ps(from, lanes_between(0, count));
}

INLINE floats keep_between(floats x, long first, long end, floats other) {
    return _mm256_blendv_ps(other, x, (floats)lanes_between(first, end));
}

INLINE void transpose(ints *rows) {
    floats *r = (floats *)rows, t[LANES];
    UNROLL for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < LANES; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
    }
    /* r[4g + j] now holds column 4h + j of rows 4g to 4g + 3 in its half h. */
    UNROLL for (int j = 0; j < 4; j++) {
        t[j] = _mm256_permute2f128_ps(r[j], r[4 + j], 0x20);
        t[4 + j] = _mm256_permute2f128_ps(r[j], r[4 + j], 0x31);
    }
    UNROLL for (int i = 0; i < LANES; i++) r[i] = t[i];
}

INLINE void store_bytes(uint8_t *to, ints lanes) {
    __m128i low = _mm256_castsi256_si128((__m256i)lanes);
    __m128i words = _mm_packs_epi32(low, _mm256_extracti128_si256((__m256i)lanes, 1));
    _mm_storel_epi64((__m128i *)to, _mm_packus_epi16(words, words));
}

#if defined(__AVXVNNI__) || defined(__AVX512VNNI__)
#define BYTE_LIMIT 127
#define WEIGHT_LIMIT 127
#define BYTE_OFFSET 128

/* In assembly, as GCC 12 moves the sums of the intrinsic through memory. */
INLINE ints dot_quads(ints sum, ints rows, ints columns) {
#ifdef __AVXVNNI__
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(rows), "xm"(columns));
#else
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(rows), "vm"(columns));
#endif
    return sum;
}
#else
#define BYTE_LIMIT 127
#define WEIGHT_LIMIT 64
#define BYTE_OFFSET 128

/* Weights of 7 bits: the sum of two products fits into 16 bits. */
INLINE ints dot_quads(ints sum, ints rows, ints columns) {
    __m256i pairs = _mm256_maddubs_epi16((__m256i)rows, (__m256i)columns);
    return sum + (ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#endif

/* The layer of vectors for 64-bit ARM: NEON, with dotprod, i8mm and bf16 where they are. */

#include <arm_neon.h>

#define LANES 4
#define PRODUCT_ROWS 6
#define PRODUCT_VECTORS 4
#define SCORE_ROWS 6
#define SCORE_VECTORS 4
#define SUM_ROWS 6
#define SUM_VECTORS 4

typedef float32x4_t floats;
typedef int32x4_t ints;

INLINE floats load(const float *from) { return vld1q_f32(from); }
INLINE void store(float *to, floats values) { vst1q_f32(to, values); }
INLINE floats broadcast(float value) { return vdupq_n_f32(value); }
INLINE ints load_lanes(const void *from) { return (ints)vld1q_u8(from); }
INLINE void store_lanes(void *to, ints lanes) { vst1q_u8(to, (uint8x16_t)lanes); }
INLINE ints broadcast_lane(const void *from) {
    return (ints)vdupq_n_f32(*(const unaligned_float *)from);
}

INLINE floats multiply_add(floats a, floats b, floats sum) { return vfmaq_f32(sum, a, b); }
INLINE floats larger(floats a, floats b) { return vmaxq_f32(a, b); }
INLINE floats absolute(floats x) { return vabsq_f32(x); }
INLINE floats nearest(floats x) { return vrndnq_f32(x); }
INLINE ints to_ints(floats x) { return vcvtnq_s32_f32(x); }
INLINE floats to_floats(ints x) { return vcvtq_f32_s32(x); }
INLINE float sum_of(floats x) { return vaddvq_f32(x); }
INLINE float largest_of(floats x) { return vmaxvq_f32(x); }

/* The exponent is put together by hand; 2^-127 and less become 0. */
INLINE floats times_power_of_two(floats x, floats whole) {
    return x * (floats)((to_ints(larger(broadcast(-127.0f), whole)) + 127) << 23);
}

INLINE floats square_root(floats x) { return vsqrtq_f32(x); }
INLINE floats reciprocal(floats x) { return 1.0f / x; }

INLINE floats where_negative(floats x, floats yes, floats no) {
    return vbslq_f32(vcltzq_f32(x), yes, no);
}

/* All bits set in the lanes [first, end). */
INLINE uint32x4_t lanes_between(long first, long end) {
    const ints lane = {0, 1, 2, 3};
    ints low = vdupq_n_s32(first < 0 ? 0 : first > LANES ? LANES : (int)first);
    ints high = vdupq_n_s32(end < 0 ? 0 : end > LANES ? LANES : (int)end);
    return vandq_u32(vcgeq_s32(lane, low), vcltq_s32(lane, high));
}

INLINE floats load_first(const float *from, long count) {
    float held[LANES] = {0};
    for (long i = 0; i < LANES && i < count; i++) held[i] = from[i];
    return load(held);
}

INLINE floats keep_between(floats x, long first, long end, floats other) {
    return vbslq_f32(lanes_between(first, end), x, other);
}

INLINE void transpose(ints *rows) {
    int32x4x2_t low = vtrnq_s32(rows[0], rows[1]), high = vtrnq_s32(rows[2], rows[3]);
    rows[0] = vcombine_s32(vget_low_s32(low.val[0]), vget_low_s32(high.val[0]));
    rows[1] = vcombine_s32(vget_low_s32(low.val[1]), vget_low_s32(high.val[1]));
    rows[2] = vcombine_s32(vget_high_s32(low.val[0]), vget_high_s32(high.val[0]));
    rows[3] = vcombine_s32(vget_high_s32(low.val[1]), vget_high_s32(high.val[1]));
}

INLINE void store_bytes(uint8_t *to, ints lanes) {
    int16x4_t words = vmovn_s32(lanes);
    int8x8_t bytes = vmovn_s16(vcombine_s16(words, words));
    vst1_lane_s32((int32_t *)to, vreinterpret_s32_s8(bytes), 0);
}

#define BYTE_LIMIT 127
#define WEIGHT_LIMIT 127
#define BYTE_OFFSET 0

INLINE ints dot_quads(ints sum, ints rows, ints columns) {
    int8x16_t a = (int8x16_t)rows, b = (int8x16_t)columns;
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(sum, a, b);
#else
    /* Bytes are at least -127, so two products fit into 16 bits. */
    int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
    return vpadalq_s16(sum, vpaddq_s16(low, high));
#endif
}

#ifdef __ARM_FEATURE_BF16_VECTOR_ARITHMETIC
#define HAS_BF16 1

INLINE ints load_words(const bf16 *from) { return (ints)vmovl_u16(vld1_u16(from)); }
INLINE void store_bf16(bf16 *to, floats values) {
    vst1_u16(to, (uint16x4_t)vcvt_bf16_f32(values));
}
INLINE floats dot_pairs(floats sum, ints a, ints b) {
    return vbfdotq_f32(sum, (bfloat16x8_t)a, (bfloat16x8_t)b);
}
#endif

/* The encoder's matrix products by themselves, for `products.py`. */

#include "modernbert.c"

/* rows: [total][depth] as `kind` has them; out: [total][columns] float or, where values between
   products are bfloat16, of these. Blocks of `block` rows are shared out among the threads. */
void benchmark_product(int kind, const char *rows, const float *row_scales, const Weights *weights,
                       long total, long block, void *out, int num_threads) {
    long size = kind == KIND_INT8 ? 1 : VALUE_SIZE(kind);
    Rows in = {rows, weights->depth * size, row_scales};
    Target target = {.what = STORE, .kind = kind, .out = out, .step = weights->columns};
#pragma omp parallel for num_threads(num_threads) schedule(dynamic, 1)
    for (long first = 0; first < total; first += block) {
        long end = first + block < total ? first + block : total;
        multiply(kind, &in, weights, first, end, 0, weights->columns / PANEL, &target);
    }
}

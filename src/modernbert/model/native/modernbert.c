/* The CPU kernels, in one translation unit; `build.py` compiles it for the machine it runs on. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "vector.h"

#include "flat_attention.h"

#include "elementwise.h"

#include "products.h"

#include "training_products.h"

#include "optimizer.h"

#include "packing.h"

#include "encoder.h"

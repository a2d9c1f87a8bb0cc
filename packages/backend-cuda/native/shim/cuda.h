// The CPU twin of the CUDA headers: kernels and the runtime compile with a C++ compiler alone, and run here.
#pragma once

#include "shim/intrinsics.h"
#include "shim/language.h"
#include "shim/runtime_api.h"

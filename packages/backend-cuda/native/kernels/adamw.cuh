// Purpose: one step of AdamW on all rows, or the used rows, of a parameter.
// Equation: g = scale * gradient; p -= lr decay p; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
//   p -= step_size m / (sqrt(v) correction + epsilon), on the master where there is one, to which p is then set.
// Shapes: parameter, master and moments [rows, columns]; gradient the same, or with COMPACT [capacity, columns];
//   ids [capacity], count [1].
// Parallelisation: a thread takes WIDTH elements, 16 bytes of the parameter. Dense, each thread once; compact, a fixed
//   number of threads goes over the rows that are used, whose number only the device knows.
// Why: it is a stream, and as fast as memory is. What depends on the step alone comes from the host in double
//   precision: 1 - beta2 in f32 is off by 1e-5.
#pragma once

#include <cstdint>

#include "device/half.h"

namespace flash_moe {

struct AdamwSettings {
  float scale, kept, beta1, rest1, beta2, rest2, step_size, correction, epsilon;
};

struct AdamwBuffers {
  float* master;
  float* first_moment;
  float* second_moment;
  const float* gradient;
};

constexpr int adamw_threads = 256;

template <int WIDTH, typename T>
FM_DEVICE void load_some(const T* from, float (&values)[WIDTH]) {
  if constexpr (WIDTH == 1) {
    values[0] = to_float(*from);
  } else {
    load_vector(from, values);
  }
}

template <int WIDTH, typename T>
FM_DEVICE void store_some(T* to, const float (&values)[WIDTH]) {
  if constexpr (WIDTH == 1) {
    *to = from_float<T>(values[0]);
  } else {
    store_vector(to, values);
  }
}

// The WIDTH elements from `at` on, whose gradients begin at `source`.
template <typename P, int WIDTH>
FM_DEVICE void adamw_update(P* parameter, const AdamwBuffers& buffers, const AdamwSettings& settings, int64_t at,
                            int64_t source) {
  float p[WIDTH], m[WIDTH], v[WIDTH], g[WIDTH];
  load_some(buffers.gradient + source, g);
  load_some(buffers.first_moment + at, m);
  load_some(buffers.second_moment + at, v);
  if (buffers.master) {
    load_some(buffers.master + at, p);
  } else {
    load_some(parameter + at, p);
  }
#pragma unroll
  for (int n = 0; n < WIDTH; n++) {
    const float scaled = settings.scale * g[n];
    m[n] = settings.beta1 * m[n] + settings.rest1 * scaled;
    v[n] = settings.beta2 * v[n] + settings.rest2 * scaled * scaled;
    p[n] = settings.kept * p[n] -
           settings.step_size * m[n] / (sqrtf(v[n]) * settings.correction + settings.epsilon);
  }
  store_some(buffers.first_moment + at, m);
  store_some(buffers.second_moment + at, v);
  if (buffers.master) store_some(buffers.master + at, p);
  store_some(parameter + at, p);
}

template <typename P, int WIDTH, bool COMPACT>
__global__ void __launch_bounds__(adamw_threads)
    adamw_step(P* parameter, AdamwBuffers buffers, AdamwSettings settings, int64_t rows, int64_t columns,
               int64_t capacity, const int32_t* ids, const int32_t* count, uint32_t* id_errors) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * adamw_threads + threadIdx.x;
  if constexpr (!COMPACT) {
    const int64_t at = thread * WIDTH;
    if (at < rows * columns) adamw_update<P, WIDTH>(parameter, buffers, settings, at, at);
  } else {
    const int64_t claimed = count[0];
    if (thread == 0 && (claimed < 0 || claimed > capacity)) atomicAdd(id_errors, 1u);
    const int64_t used = claimed < 0 ? 0 : claimed > capacity ? capacity : claimed;
    const int64_t words = columns / WIDTH;
    const int64_t stride = static_cast<int64_t>(gridDim.x) * adamw_threads;
    // Of the word that comes next; a division per step would cost more than the step.
    int64_t entry = thread / words, word = thread % words;
    const int64_t entry_stride = stride / words, word_stride = stride % words;
    while (entry < used) {
      const int32_t row = ids[entry];
      if (row >= 0 && row < rows) {
        adamw_update<P, WIDTH>(parameter, buffers, settings, row * columns + word * WIDTH,
                               entry * columns + word * WIDTH);
      } else if (word == 0) {
        atomicAdd(id_errors, 1u);
      }
      entry += entry_stride;
      word += word_stride;
      if (word >= words) {
        word -= words;
        entry++;
      }
    }
  }
}

}  // namespace flash_moe

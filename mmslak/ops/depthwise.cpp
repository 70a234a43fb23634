// Depth-wise convolution with large kernels, stride 1, any dilation and "same" zero padding, for
// CPUs.
//
// A vector holds the values of several channels at one position, one channel in each lane. Nothing
// is shuffled inside a vector, and padding costs nothing. A few lines of the feature map at a time
// are copied into a tile of such vectors. If the kernel is tall, the copy transposes them, so that
// the long side of the kernel always runs along the lines of a tile. One loop then does all the
// arithmetic:
//
//     out[t] += sum_u  s[u] * v[u + t],    t = 0 .. P - 1, with all of out in registers.
//
// In the forward pass, s is a row of the kernel, v is a line of the feature map and out is a block
// of neighbouring outputs. For the gradient of the kernel, s is a line of the gradient of the
// output, v is a line of the feature map and out is a block of neighbouring weights. The gradient
// of the feature map is the forward pass with the flipped kernel. With a dilation d, the index of v
// is d * u + t in the forward pass and u + d * t for the gradient of the kernel.
//
// Neither PyTorch's headers nor the C++ runtime nor OpenMP is needed. The caller passes a function
// of the OpenMP runtime that PyTorch uses, so that both use the same threads.

#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

// Number of vectors of out in registers, which leaves registers for s and v. The sides of SLaK's
// feature maps for images of 224 x 224 are multiples of 7.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int64_t kBlock = 14;
#else
constexpr int64_t kBlock = 7;
#endif

// A tile should fit into the second-level cache together with the data that is read and written.
constexpr int64_t kTileBytes = 256 * 1024;
// Number of partial sums of the gradient of the kernel, enough for many threads. It depends only on
// the shapes, so that the result does not depend on the number of threads.
constexpr int64_t kPartials = 64;

typedef void (*ParallelFn)(void (*)(void *), void *, unsigned, unsigned);

namespace {

template <typename T>
struct Vec;
template <>
struct Vec<float> {
  typedef float type __attribute__((vector_size(VECTOR_BYTES)));
  typedef int32_t index __attribute__((vector_size(VECTOR_BYTES)));
};
template <>
struct Vec<double> {
  typedef double type __attribute__((vector_size(VECTOR_BYTES)));
  typedef int64_t index __attribute__((vector_size(VECTOR_BYTES)));
};

int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Feature maps (N, C, lines, length) with strides in elements. Lines are rows, or columns if the
// kernel is tall.
template <typename T>
struct FeatureMaps {
  T *data;
  int64_t n, c, line, along;
};

template <typename T>
struct Problem {
  typedef typename Vec<T>::type V;
  static constexpr int64_t lanes = VECTOR_BYTES / sizeof(T);

  int64_t images, channels, lines, length;  // of the feature maps
  int64_t rows, taps;                       // sides of the kernel across lines and along lines
  int64_t row_step, tap_step;               // dilation across lines and along lines
  FeatureMaps<const T> x;
  FeatureMaps<const T> grad;  // gradient of the kernel only
  FeatureMaps<T> y;           // forward only
  const T *bias;              // forward only, may be null
  int accumulate;             // forward only: add to y
  const T *weight;            // forward only: (C, rows, taps), or (C, taps, rows) if transposed
  T *result;                  // gradient of the kernel only, in the layout of weight
  int transposed;             // the kernel is tall
  V *partial;                 // [groups][channel blocks][rows][taps]
  int64_t groups;             // number of groups of slices; a slice is a chunk of lines of an image
  int64_t chunk;              // lines in a chunk
  int64_t next;               // number of the next piece of work
  int failed;

  int64_t channel_blocks() const { return ceil_div(channels, lanes); }
  int64_t chunks() const { return ceil_div(lines, chunk); }
  int64_t half_rows() const { return rows / 2; }
  int64_t half_taps() const { return taps / 2; }
  // Lines that a line of outputs needs on each side of it, and in total.
  int64_t reach() const { return half_rows() * row_step; }
  int64_t span() const { return (rows - 1) * row_step + 1; }
  // Size of the blocks if `extent` outputs or taps are split evenly into blocks of at most kBlock.
  int64_t block(int64_t extent, int64_t most = kBlock) const {
    return ceil_div(extent, ceil_div(extent, most));
  }
  // Blocks of dilated taps are not much longer than a line.
  int64_t block_of_taps() const {
    return block(taps, tap_step == 1 ? kBlock : min(kBlock, 1 + 2 * length / tap_step));
  }
};

// Adds s[u] * v[u_step * u + t_step * t] to out[t], for `count` values of u in each of some lines.
// t_step is 1 unless kSpread is set.
template <typename V, int P, bool kSpread>
inline void correlate(V *out, const V *s, int64_t s_line, const V *v, int64_t v_line,
                      int64_t lines, int64_t count, int64_t u_step, int64_t t_step) {
  V sum[P];
  for (int t = 0; t < P; ++t) sum[t] = out[t];
  for (int64_t i = 0; i < lines; ++i, s += s_line, v += v_line) {
    const V *from = v;
    for (int64_t u = 0; u < count; ++u, from += u_step) {
      const V a = s[u];
#pragma GCC unroll 16
      for (int t = 0; t < P; ++t) sum[t] += a * from[kSpread ? t * t_step : t];
    }
  }
  for (int t = 0; t < P; ++t) out[t] = sum[t];
}

// Calls `correlate` for an out of `width` vectors, 1 to kBlock.
template <bool kSpread, typename V>
void correlate(V *out, int64_t width, const V *s, int64_t s_line, const V *v, int64_t v_line,
               int64_t lines, int64_t count, int64_t u_step, int64_t t_step) {
  switch (width) {
#define CASE(P)                                                                        \
  case P:                                                                              \
    correlate<V, P, kSpread>(out, s, s_line, v, v_line, lines, count, u_step, t_step); \
    break;
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7)
#if defined(__AVX512F__) || defined(__aarch64__)
    CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14)
#endif
#undef CASE
  }
}

// Visits the positions of a tile in the order in which a copy reads or writes the other memory:
// `inner` positions at a distance of `step`, then the same at a distance of `run`.
struct Position {
  int64_t start, i, inner, step, run;
  int64_t next() {
    const int64_t at = start + i * step;
    if (++i == inner) {
      i = 0;
      start += run;
    }
    return at;
  }
};

// Transposes a square block: as many vectors as a vector has lanes.
template <typename T>
inline void transpose(typename Vec<T>::type *block) {
  constexpr int lanes = Problem<T>::lanes;
#if defined(__GNUC__) && !defined(__clang__)
  typedef typename Vec<T>::index Index;
#pragma GCC unroll 8
  for (int d = 1; d < lanes; d *= 2) {
    // Swap the squares of side d above the diagonal with those below it.
    Index upper, lower;
    for (int l = 0; l < lanes; ++l) {
      upper[l] = l & d ? lanes + l - d : l;
      lower[l] = l & d ? lanes + l : l + d;
    }
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) {
      if (i & d) continue;
      const typename Vec<T>::type a = block[i], b = block[i + d];
      block[i] = __builtin_shuffle(a, b, upper);
      block[i + d] = __builtin_shuffle(a, b, lower);
    }
  }
#else
  T *values = reinterpret_cast<T *>(block);
  for (int i = 0; i < lanes; ++i)
    for (int j = 0; j < i; ++j) {
      const T value = values[i * lanes + j];
      values[i * lanes + j] = values[j * lanes + i];
      values[j * lanes + i] = value;
    }
#endif
}

// Copies lines [first, last) of image n, from channel c on, into tile[line - first][i] for each
// position i. Lanes after the last channel are not written. `pitch` is the distance between lines
// of the tile.
template <typename T>
void pack(const Problem<T> &p, const FeatureMaps<const T> &maps, int64_t n, int64_t c,
          int64_t first, int64_t last, typename Vec<T>::type *tile, int64_t pitch) {
  constexpr int64_t lanes = Problem<T>::lanes;
  const int64_t width = min(lanes, p.channels - c);
  const T *source = maps.data + n * maps.n + c * maps.c;
  if (maps.c == 1) {
    T *target = reinterpret_cast<T *>(tile);
    for (int64_t line = first; line < last; ++line) {
      const T *from = source + line * maps.line;
      T *to = target + (line - first) * pitch * lanes;
      if (width == lanes) {
        for (int64_t i = 0; i < p.length; ++i)
          memcpy(to + i * lanes, from + i * maps.along, sizeof(T) * lanes);
      } else {
        for (int64_t i = 0; i < p.length; ++i)
          for (int64_t k = 0; k < width; ++k) to[i * lanes + k] = from[i * maps.along + k];
      }
    }
    return;
  }
  // The inner loop runs in the direction of the smaller stride. Lines without gaps between them are
  // read as one line, because a line of a small feature map would not fill a vector.
  const bool by_line = maps.along <= maps.line;
  const int64_t outer = by_line ? last - first : p.length;
  const int64_t inner = by_line ? p.length : last - first;
  const int64_t outer_from = by_line ? maps.line : maps.along;
  const int64_t inner_from = by_line ? maps.along : maps.line;
  const int64_t outer_to = by_line ? pitch : 1, inner_to = by_line ? 1 : pitch;
  const bool dense = inner_from == 1 && outer_from == inner;
  const int64_t runs = dense ? 1 : outer, length = dense ? outer * inner : inner;
  source += first * maps.line;
  for (int64_t a = 0; a < runs; ++a) {
    const T *from = source + a * outer_from;
    Position at = {a * outer_to, 0, inner, inner_to, outer_to};
    int64_t b = 0;
    if (inner_from == 1) {
      for (; b + lanes <= length; b += lanes) {
        typename Vec<T>::type block[lanes] = {};
        for (int64_t k = 0; k < width; ++k)
          memcpy(&block[k], from + k * maps.c + b, sizeof(block[k]));
        transpose<T>(block);
        for (int64_t k = 0; k < lanes; ++k) tile[at.next()] = block[k];
      }
    }
    for (; b < length; ++b) {
      T *to = reinterpret_cast<T *>(tile + at.next());
      for (int64_t k = 0; k < width; ++k) to[k] = from[k * maps.c + b * inner_from];
    }
  }
}

// Copies tile[line - first][i] to y, or adds it to y if `accumulate` is set.
template <typename T>
void unpack(const Problem<T> &p, int64_t n, int64_t c, int64_t first, int64_t last,
            const typename Vec<T>::type *tile) {
  constexpr int64_t lanes = Problem<T>::lanes;
  const int64_t width = min(lanes, p.channels - c);
  const FeatureMaps<T> &y = p.y;
  T *target = y.data + n * y.n + c * y.c;
  const T *source = reinterpret_cast<const T *>(tile);
  if (y.c == 1) {
    for (int64_t line = first; line < last; ++line) {
      for (int64_t i = 0; i < p.length; ++i) {
        T *to = target + line * y.line + i * y.along;
        const T *from = source + ((line - first) * p.length + i) * lanes;
        if (width < lanes || p.accumulate) {
          for (int64_t k = 0; k < width; ++k) to[k] = p.accumulate ? to[k] + from[k] : from[k];
        } else {
          memcpy(to, from, sizeof(T) * lanes);
        }
      }
    }
    return;
  }
  const bool by_line = y.along <= y.line;
  const int64_t outer = by_line ? last - first : p.length;
  const int64_t inner = by_line ? p.length : last - first;
  const int64_t outer_to = by_line ? y.line : y.along, inner_to = by_line ? y.along : y.line;
  const int64_t outer_from = by_line ? p.length : 1, inner_from = by_line ? 1 : p.length;
  const bool dense = inner_to == 1 && outer_to == inner;
  const int64_t runs = dense ? 1 : outer, length = dense ? outer * inner : inner;
  target += first * y.line;
  for (int64_t a = 0; a < runs; ++a) {
    T *to = target + a * outer_to;
    Position at = {a * outer_from, 0, inner, inner_from, outer_from};
    int64_t b = 0;
    if (inner_to == 1) {
      for (; b + lanes <= length; b += lanes) {
        typename Vec<T>::type block[lanes], old;
        for (int64_t k = 0; k < lanes; ++k) block[k] = tile[at.next()];
        transpose<T>(block);
        for (int64_t k = 0; k < width; ++k) {
          T *place = to + k * y.c + b;
          if (p.accumulate) {
            memcpy(&old, place, sizeof(old));
            block[k] += old;
          }
          memcpy(place, &block[k], sizeof(old));
        }
      }
    }
    for (; b < length; ++b) {
      const T *from = reinterpret_cast<const T *>(tile + at.next());
      for (int64_t k = 0; k < width; ++k) {
        T *place = to + k * y.c + b * inner_to;
        *place = p.accumulate ? *place + from[k] : from[k];
      }
    }
  }
}

// Visits the packed kernel, [row][tap], in the order of the kernel in memory.
template <typename T>
Position kernel_order(const Problem<T> &p) {
  if (p.transposed) return {0, 0, p.rows, p.taps, 1};
  return {0, 0, p.rows * p.taps, 1, 0};
}

template <typename T>
void pack_kernel(const Problem<T> &p, int64_t b, typename Vec<T>::type *kernel) {
  constexpr int64_t lanes = Problem<T>::lanes;
  const int64_t size = p.rows * p.taps, width = min(lanes, p.channels - b * lanes);
  const T *from = p.weight + b * lanes * size;
  Position at = kernel_order(p);
  for (int64_t i = 0; i < size; i += lanes) {
    typename Vec<T>::type block[lanes] = {};
    const int64_t count = min(lanes, size - i);
    for (int64_t k = 0; k < width; ++k) memcpy(&block[k], from + k * size + i, count * sizeof(T));
    transpose<T>(block);
    for (int64_t k = 0; k < count; ++k) kernel[at.next()] = block[k];
  }
}

template <typename T>
void unpack_kernel(const Problem<T> &p, int64_t b, const typename Vec<T>::type *kernel) {
  constexpr int64_t lanes = Problem<T>::lanes;
  const int64_t size = p.rows * p.taps, width = min(lanes, p.channels - b * lanes);
  T *to = p.result + b * lanes * size;
  Position at = kernel_order(p);
  for (int64_t i = 0; i < size; i += lanes) {
    typename Vec<T>::type block[lanes] = {};
    const int64_t count = min(lanes, size - i);
    for (int64_t k = 0; k < count; ++k) block[k] = kernel[at.next()];
    transpose<T>(block);
    for (int64_t k = 0; k < width; ++k) memcpy(to + k * size + i, &block[k], count * sizeof(T));
  }
}

template <typename T>
typename Vec<T>::type *allocate(int64_t vectors) {
  void *memory = nullptr;
  if (posix_memalign(&memory, VECTOR_BYTES, max(vectors, 1) * VECTOR_BYTES)) return nullptr;
  return static_cast<typename Vec<T>::type *>(memory);
}

template <typename T>
int64_t take(Problem<T> &p) {
  return __atomic_fetch_add(&p.next, 1, __ATOMIC_RELAXED);
}

// Forward pass. A piece of work is a chunk of lines of one image and one block of channels.
template <typename T>
void forward_worker(void *data) {
  typedef typename Vec<T>::type V;
  Problem<T> &p = *static_cast<Problem<T> *>(data);
  const int64_t block = p.block(p.length), pad = block - 1, pitch = p.length + 2 * pad;
  const int64_t blocks = p.channel_blocks(), chunks = p.chunks();
  const int64_t tile_lines = min(p.lines, p.chunk + p.span() - 1);
  V *tile = allocate<T>(tile_lines * pitch), *out = allocate<T>(p.chunk * p.length);
  V *kernel = allocate<T>(p.rows * p.taps);
  if (!tile || !out || !kernel) {
    p.failed = 1;
    free(tile);
    free(out);
    free(kernel);
    return;
  }
  int64_t packed = -1;
  // The margins stay zero, so they are written only once.
  memset(tile, 0, tile_lines * pitch * sizeof(V));
  for (int64_t work; (work = take(p)) < p.images * blocks * chunks;) {
    // Blocks of channels change slowest. Each thread packs the kernels that it uses.
    const int64_t b = work / (p.images * chunks), n = work / chunks % p.images;
    const int64_t first = work % chunks * p.chunk, last = min(p.lines, first + p.chunk);
    const int64_t from = max(0, first - p.reach());
    const int64_t to = min(p.lines, last + p.reach());
    if (b != packed) {
      pack_kernel(p, b, kernel);
      packed = b;
    }
    V bias = {};
    if (p.bias) {
      for (int64_t k = 0; k < min(p.lanes, p.channels - b * p.lanes); ++k)
        bias[k] = p.bias[b * p.lanes + k];
    }
    pack(p, p.x, n, b * p.lanes, from, to, tile + pad, pitch);
    for (int64_t line = first; line < last; ++line) {
      // Rows of the kernel that are inside the feature map.
      const int64_t top = max(0, p.half_rows() - line / p.row_step);
      const int64_t bottom = min(p.rows, p.half_rows() + (p.lines - 1 - line) / p.row_step + 1);
      const V *nearest = tile + (line - from + (top - p.half_rows()) * p.row_step) * pitch + pad;
      for (int64_t start = 0; start < p.length;) {
        const int64_t width = min(block, p.length - start);
        // Skip the taps that are outside the line for the whole block.
        const int64_t left = max(0, p.half_taps() - (start + width - 1) / p.tap_step);
        const int64_t right = min(p.taps, p.half_taps() + (p.length - 1 - start) / p.tap_step + 1);
        V *sums = out + (line - first) * p.length + start;
        for (int64_t t = 0; t < width; ++t) sums[t] = bias;
        correlate<false>(sums, width, kernel + top * p.taps + left, p.taps,
                         nearest + start + (left - p.half_taps()) * p.tap_step,
                         p.row_step * pitch, bottom - top, right - left, p.tap_step, 1);
        start += width;
      }
    }
    unpack(p, n, b * p.lanes, first, last, out);
  }
  free(tile);
  free(out);
  free(kernel);
}

// Gradient of the kernel. A piece of work is one group of slices and one block of channels.
template <typename T>
void gradient_worker(void *data) {
  typedef typename Vec<T>::type V;
  Problem<T> &p = *static_cast<Problem<T> *>(data);
  const int64_t block = p.block_of_taps(), pad = p.tap_step * (block - 1);
  const int64_t pitch = p.length + 2 * pad;
  const int64_t blocks = p.channel_blocks(), slices = p.images * p.chunks();
  const int64_t tile_lines = min(p.lines, p.chunk + p.span() - 1);
  V *tile = allocate<T>(tile_lines * pitch), *grad = allocate<T>(p.chunk * p.length);
  if (!tile || !grad) {
    p.failed = 1;
    free(tile);
    free(grad);
    return;
  }
  memset(tile, 0, tile_lines * pitch * sizeof(V));
  // Lanes after the last channel take part in the arithmetic, which would be slow for denormals.
  memset(grad, 0, p.chunk * p.length * sizeof(V));
  for (int64_t work; (work = take(p)) < p.groups * blocks;) {
    const int64_t group = work / blocks, b = work % blocks;
    V *sums = p.partial + work * p.rows * p.taps;
    memset(sums, 0, p.rows * p.taps * sizeof(V));
    const int64_t end = (group + 1) * slices / p.groups;
    for (int64_t slice = group * slices / p.groups; slice < end; ++slice) {
      const int64_t n = slice / p.chunks();
      const int64_t first = slice % p.chunks() * p.chunk, last = min(p.lines, first + p.chunk);
      const int64_t from = max(0, first - p.reach());
      const int64_t to = min(p.lines, last + p.reach());
      pack(p, p.x, n, b * p.lanes, from, to, tile + pad, pitch);
      pack(p, p.grad, n, b * p.lanes, first, last, grad, p.length);
      for (int64_t row = 0; row < p.rows; ++row) {
        const int64_t down = (row - p.half_rows()) * p.row_step;
        const int64_t top = max(first, -down), bottom = min(last, p.lines - down);
        if (top >= bottom) continue;
        for (int64_t start = 0; start < p.taps;) {
          const int64_t width = min(block, p.taps - start);
          const int64_t shift = (start - p.half_taps()) * p.tap_step;  // of the first tap
          // Skip the positions for which all taps of the block are outside the line.
          const int64_t left = max(0, -shift - (width - 1) * p.tap_step);
          const int64_t right = min(p.length, p.length - shift);
          if (left < right) {
            const V *s = grad + (top - first) * p.length + left;
            const V *v = tile + (top + down - from) * pitch + pad + left + shift;
            V *out = sums + row * p.taps + start;
            if (p.tap_step == 1)
              correlate<false>(out, width, s, p.length, v, pitch, bottom - top, right - left, 1, 1);
            else
              correlate<true>(out, width, s, p.length, v, pitch, bottom - top, right - left, 1,
                              p.tap_step);
          }
          start += width;
        }
      }
    }
  }
  free(tile);
  free(grad);
}

// Adds the partial sums of each block of channels in a fixed order, and writes the result.
template <typename T>
void sum_worker(void *data) {
  Problem<T> &p = *static_cast<Problem<T> *>(data);
  const int64_t size = p.rows * p.taps, blocks = p.channel_blocks();
  for (int64_t b; (b = take(p)) < blocks;) {
    typename Vec<T>::type *sums = p.partial + b * size;
    for (int64_t g = 1; g < p.groups; ++g)
      for (int64_t i = 0; i < size; ++i) sums[i] += p.partial[(g * blocks + b) * size + i];
    unpack_kernel(p, b, sums);
  }
}

template <typename T>
void run(void (*worker)(void *), Problem<T> &p, int64_t threads, ParallelFn parallel) {
  p.next = 0;
  if (parallel && threads > 1)
    parallel(worker, &p, static_cast<unsigned>(threads), 0);
  else
    worker(&p);
}

template <typename T>
Problem<T> make_problem(const int64_t *shape, const int64_t *kernel, const int64_t *dilation,
                        const T *x, const int64_t *x_stride) {
  const int transposed = kernel[0] > kernel[1];
  Problem<T> p = {};
  p.images = shape[0];
  p.channels = shape[1];
  p.lines = shape[transposed ? 3 : 2];
  p.length = shape[transposed ? 2 : 3];
  p.rows = kernel[transposed ? 1 : 0];
  p.taps = kernel[transposed ? 0 : 1];
  p.row_step = dilation[transposed ? 1 : 0];
  p.tap_step = dilation[transposed ? 0 : 1];
  p.transposed = transposed;
  p.x = {x, x_stride[0], x_stride[1], x_stride[transposed ? 3 : 2], x_stride[transposed ? 2 : 3]};
  return p;
}

template <typename T>
int64_t lines_of_a_tile(const Problem<T> &p, int64_t pitch) {
  const int64_t fitting = kTileBytes / (pitch * VECTOR_BYTES);
  // A chunk has at least as many lines as are read again for its neighbours.
  return max(1, min(p.lines, max(fitting - p.span() + 1, p.span() - 1)));
}

template <typename T>
int forward(const int64_t *shape, const int64_t *kernel, const int64_t *dilation, const T *x,
            const int64_t *x_stride, const T *weight, const T *bias, T *y, const int64_t *y_stride,
            int accumulate, int64_t threads, ParallelFn parallel) {
  Problem<T> p = make_problem(shape, kernel, dilation, x, x_stride);
  p.y = {y, y_stride[0], y_stride[1], y_stride[p.transposed ? 3 : 2],
         y_stride[p.transposed ? 2 : 3]};
  p.weight = weight;
  p.bias = bias;
  p.accumulate = accumulate;
  p.chunk = lines_of_a_tile(p, p.length + 2 * (p.block(p.length) - 1));
  const int64_t pieces = p.images * p.channel_blocks();
  // Small pieces of work keep all threads busy until the end. They do not change the result.
  if (pieces < 4 * threads)
    p.chunk = max(min(p.chunk, p.span()), min(p.chunk, ceil_div(p.lines * pieces, 4 * threads)));
  run(forward_worker<T>, p, threads, parallel);
  return p.failed;
}

template <typename T>
int gradient(const int64_t *shape, const int64_t *kernel, const int64_t *dilation, const T *x,
             const int64_t *x_stride, const T *grad, const int64_t *grad_stride, T *result,
             int64_t threads, ParallelFn parallel) {
  Problem<T> p = make_problem(shape, kernel, dilation, x, x_stride);
  p.grad = {grad, grad_stride[0], grad_stride[1], grad_stride[p.transposed ? 3 : 2],
            grad_stride[p.transposed ? 2 : 3]};
  p.chunk = lines_of_a_tile(p, 2 * p.length + 2 * p.tap_step * (p.block_of_taps() - 1));
  const int64_t blocks = p.channel_blocks();
  p.groups = min(p.images * p.chunks(), ceil_div(kPartials, blocks));
  p.partial = allocate<T>(p.groups * blocks * p.rows * p.taps);
  if (!p.partial) return 1;
  p.result = result;
  run(gradient_worker<T>, p, threads, parallel);
  if (!p.failed) run(sum_worker<T>, p, threads, parallel);
  free(p.partial);
  return p.failed;
}

}  // namespace

#define EXPORT(NAME, T)                                                                            \
  extern "C" int mmslak_forward_##NAME(                                                            \
      const int64_t *shape, const int64_t *kernel, const int64_t *dilation, const T *x,            \
      const int64_t *x_stride, const T *weight, const T *bias, T *y, const int64_t *y_stride,      \
      int accumulate, int64_t threads, ParallelFn parallel) {                                      \
    return forward<T>(shape, kernel, dilation, x, x_stride, weight, bias, y, y_stride, accumulate, \
                      threads, parallel);                                                          \
  }                                                                                                \
  extern "C" int mmslak_gradient_##NAME(                                                           \
      const int64_t *shape, const int64_t *kernel, const int64_t *dilation, const T *x,            \
      const int64_t *x_stride, const T *grad, const int64_t *grad_stride, T *result,               \
      int64_t threads, ParallelFn parallel) {                                                      \
    return gradient<T>(shape, kernel, dilation, x, x_stride, grad, grad_stride, result, threads,   \
                       parallel);                                                                  \
  }

EXPORT(float, float)
EXPORT(double, double)

// Compares the CPU kernels with plain loops, for random shapes, strides and numbers of threads.
// The buffers have exactly the size that the kernels may access. test_sanitized.py builds this
// file with sanitizers.

#include <pthread.h>

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "../../mmslak/ops/depthwise.cpp"

namespace {

struct Team {
  void (*work)(void *);
  void *data;
};

void *member(void *team) {
  static_cast<Team *>(team)->work(static_cast<Team *>(team)->data);
  return nullptr;
}

// Replaces OpenMP's function with threads that the sanitizers can follow.
void parallel(void (*work)(void *), void *data, unsigned threads, unsigned) {
  Team team = {work, data};
  std::vector<pthread_t> members(threads - 1);
  for (auto &m : members) pthread_create(&m, nullptr, member, &team);
  work(data);
  for (auto &m : members) pthread_join(m, nullptr);
}

std::mt19937 generator(1);

int64_t between(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(generator);
}

template <typename T>
struct Array {
  std::vector<T> data;
  int64_t stride[4];

  // A dense array of random values, in one of three orders of the dimensions.
  explicit Array(const int64_t *shape) : data(shape[0] * shape[1] * shape[2] * shape[3]) {
    const int orders[3][4] = {{0, 1, 2, 3}, {0, 2, 3, 1}, {0, 1, 3, 2}};
    const int *order = orders[between(0, 2)];
    int64_t step = 1;
    for (int i = 3; i >= 0; --i) {
      stride[order[i]] = step;
      step *= shape[order[i]];
    }
    fill();
  }

  void fill() {
    for (auto &value : data) value = std::normal_distribution<T>()(generator);
  }

  T &at(int64_t n, int64_t c, int64_t h, int64_t w) {
    return data[n * stride[0] + c * stride[1] + h * stride[2] + w * stride[3]];
  }
};

template <typename T>
void require(T got, T wanted, const char *what) {
  // The negation makes NaN fail.
  if (!(std::abs(got - wanted) <= T(1e-3) * (1 + std::abs(wanted)))) {
    std::printf("%s: %g instead of %g\n", what, double(got), double(wanted));
    std::exit(1);
  }
}

template <typename T>
void run_case(int64_t large) {
  const int64_t shape[4] = {between(1, 3), between(1, 35), between(1, large), between(1, large)};
  const int64_t kernel[2] = {2 * between(0, between(0, 1) ? 2 : 15) + 1,
                             2 * between(0, between(0, 1) ? 2 : 30) + 1};
  // Some dilations are larger than the feature map.
  const int64_t most = between(0, 1) ? 1 : between(0, 3) ? 6 : 30;
  const int64_t dilation[2] = {between(1, most), between(1, most)};
  const int64_t threads = between(1, 5), N = shape[0], C = shape[1], H = shape[2], W = shape[3];
  Array<T> x(shape), y(shape), grad(shape);
  std::vector<T> weight(C * kernel[0] * kernel[1]), bias(C), result(weight.size());
  for (auto &value : weight) value = std::normal_distribution<T>()(generator);
  for (auto &value : bias) value = std::normal_distribution<T>()(generator);
  const int accumulate = between(0, 1);
  const bool biased = between(0, 1);
  const std::vector<T> before = y.data;
  if (forward<T>(shape, kernel, dilation, x.data.data(), x.stride, weight.data(),
                 biased ? bias.data() : nullptr, y.data.data(), y.stride, accumulate, threads,
                 parallel) ||
      gradient<T>(shape, kernel, dilation, x.data.data(), x.stride, grad.data.data(), grad.stride,
                  result.data(), threads, parallel)) {
    std::printf("out of memory\n");
    std::exit(1);
  }
  std::vector<T> wanted(weight.size());
  for (int64_t n = 0; n < N; ++n)
    for (int64_t c = 0; c < C; ++c)
      for (int64_t h = 0; h < H; ++h)
        for (int64_t w = 0; w < W; ++w) {
          T sum = biased ? bias[c] : T(0);
          for (int64_t i = 0; i < kernel[0]; ++i)
            for (int64_t j = 0; j < kernel[1]; ++j) {
              const int64_t a = h + dilation[0] * (i - kernel[0] / 2);
              const int64_t b = w + dilation[1] * (j - kernel[1] / 2);
              if (a < 0 || b < 0 || a >= H || b >= W) continue;
              const int64_t tap = (c * kernel[0] + i) * kernel[1] + j;
              sum += weight[tap] * x.at(n, c, a, b);
              wanted[tap] += grad.at(n, c, h, w) * x.at(n, c, a, b);
            }
          const T *old = &before[&y.at(n, c, h, w) - y.data.data()];
          require(y.at(n, c, h, w), sum + (accumulate ? *old : T(0)), "output");
        }
  for (size_t i = 0; i < wanted.size(); ++i) require(result[i], wanted[i], "gradient");
}

}  // namespace

int main(int, char **arguments) {
  for (int i = 0; i < std::atoi(arguments[1]); ++i) {
    run_case<float>(i % 10 ? 24 : 90);
    run_case<double>(24);
  }
  std::printf("passed\n");
  return 0;
}

// Multi-scale deformable attention, temporal self-attention and spatial cross-attention on a CPU, forward and
// backward.  Plain C++17 with a C interface (attention.py calls it through ctypes), nothing of torch's headers,
// and nothing of libstdc++'s or of an OpenMP library's is linked: the same file runs beside any torch.
//
// All three are one problem.  A row (a query) has, per head, L * P samples, grouped by level.  A level is a map
// of h * w cells somewhere in the value; in temporal attention the two queues are its two levels.  A row visits
// one map, or, in spatial attention, the map of each camera that sees it.
//
// Threads never share what they write, so there are no atomics, and every sum is taken in an order that does
// not depend on their number: results are equal to the bit for 1 and for 64 threads.
//   forward    A thread owns a chunk of rows.
//   backward   A thread owns one head of one map (or of one level of it): the gradient of that slice of the
//              value is a scatter, which only one owner can do without atomics, and as everything else of
//              the slice is at hand, the gradients of offsets and logits are taken in the same pass.  That is
//              M * H units: 48 at BEVFormer's six cameras.  Where several cameras see a row (one row in ten)
//              each leaves its part in a buffer, and the parts are added up afterwards, cameras ascending.

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <pthread.h>
#include <sys/mman.h>
#include <type_traits>
#include <unistd.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))
#define INLINE inline __attribute__((always_inline))

namespace {

constexpr int MAX_SAMPLES = 256;  // that are placed together, filled up to PAD; base has 8 heads of 4 levels of 8
constexpr int MAX_DEPTH = 1024;   // channels of the heads that are taken together
constexpr int PAD = 16;           // floats of the widest vector: loops over samples have no rest
#ifndef ROWS_PER_CHUNK
#define ROWS_PER_CHUNK 64
#endif

enum Kind : int32_t { FLOAT32 = 0, FLOAT64 = 1, BFLOAT16 = 2 };

struct bf16 {
  uint16_t bits;
};

}  // namespace

// Mirrored by `Call` in attention.py.  All strides in elements.
struct Call {
  const void* value;    // map m, cell s, channel c at m * map_stride + s * cell_stride + c
  const void* offsets;  // (rows, H, L, P, 2)
  const void* logits;   // (rows, H, L, P)
  const void* points;   // (x, y) of the reference points, in the type that is computed in
  const void* grad;     // (rows, C), of the output; backward only
  void* out;            // (rows, C); forward only
  void* grad_value;     // (maps, cells_per_map, C), or null
  void* grad_offsets;   // as offsets
  void* grad_logits;    // as logits
  const int64_t* level_h;
  const int64_t* level_w;
  const int64_t* level_start;     // of each level in its map, in value's elements
  const int64_t* level_cell;      // the same in cells of grad_value
  const int32_t* starts;          // spatial: row r has the visits starts[r] to starts[r + 1]; else null
  const int32_t* visit_map;       // spatial: (visits,)
  const int32_t* visit_row;       // spatial: (visits,)
  const int32_t* by_map;          // spatial: (visits,) visits sorted by map, then row
  const int32_t* map_starts;      // spatial: (maps + 1,)
  int64_t map_stride, cell_stride, cells_per_map;
  int64_t maps, rows, visits;
  int64_t heads, depth, levels, points_per_level, references;
  int64_t softmax_levels;         // levels that share one softmax: all, or 1
  int64_t split_levels;           // backward: 1 when every level of a map has its own owner
  int64_t point_map_stride, point_row_stride, point_level_stride;
  double scale;                   // of the output
  int64_t value_kind, offsets_kind, logits_kind, compute_kind;
  int64_t threads;
};

namespace {

// --- numbers -------------------------------------------------------------------------------------------------

template <class To, class From>
INLINE To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

template <class A>
INLINE A widen(float x) { return A(x); }
template <class A>
INLINE A widen(double x) { return A(x); }
template <class A>
INLINE A widen(bf16 x) { return A(bits_as<float>(uint32_t(x.bits) << 16)); }

template <class T>
struct Narrow {
  template <class A>
  static INLINE T of(A x) { return T(x); }
};
template <>
struct Narrow<bf16> {  // to the nearest, ties to even; NaN stays NaN
  template <class A>
  static INLINE bf16 of(A x) {
    float wide = float(x);
    uint32_t bits = bits_as<uint32_t>(wide);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return bf16{uint16_t(wide == wide ? rounded : 0x7fc0)};
  }
};

// --- vectors of W numbers, W a power of two that divides D ---------------------------------------------------

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif

template <class A, int W>
struct Vec {
  typedef A type __attribute__((vector_size(W * sizeof(A))));
};

template <class A, int W>
INLINE typename Vec<A, W>::type load(const A* p) {
  typename Vec<A, W>::type v;
  memcpy(&v, p, sizeof v);
  return v;
}

template <class A, int W>
INLINE typename Vec<A, W>::type load(const bf16* p) {
  typename Vec<A, W>::type v;
#if defined(__AVX512F__)
  if constexpr (W == 16 && sizeof(A) == 4) {
    __m256i half;
    memcpy(&half, p, sizeof half);
    v = bits_as<typename Vec<A, W>::type>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    return v;
  }
#endif
#if defined(__AVX2__)
  if constexpr (W == 8 && sizeof(A) == 4) {
    __m128i half;
    memcpy(&half, p, sizeof half);
    v = bits_as<typename Vec<A, W>::type>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
    return v;
  }
#endif
  for (int i = 0; i < W; ++i) v[i] = widen<A>(p[i]);
  return v;
}

template <class A, int W>
INLINE void store(A* p, const typename Vec<A, W>::type& v) {
  memcpy(p, &v, sizeof v);
}

// Number i is number i ^ BY of v.
template <class A, int W, int BY>
INLINE typename Vec<A, W>::type swapped(const typename Vec<A, W>::type& v) {
#if defined(__GNUC__) && !defined(__clang__)
  typedef typename std::conditional<sizeof(A) == 4, int32_t, int64_t>::type I;
  typename Vec<I, W>::type from;
  for (int i = 0; i < W; ++i) from[i] = i ^ BY;
  return __builtin_shuffle(v, from);
#else
  typename Vec<A, W>::type to;
  for (int i = 0; i < W; ++i) to[i] = v[i ^ BY];
  return to;
#endif
}

template <class A, int W>
INLINE A sum_of(const typename Vec<A, W>::type& v) {
  A s[W];
  memcpy(s, &v, sizeof s);
  for (int n = W / 2; n; n /= 2)
    for (int i = 0; i < n; ++i) s[i] += s[i + n];
  return s[0];
}

// The sums of four vectors.  Together they take a third of the shuffles that four times one would.
template <class A, int W>
INLINE void sums_of_4(const typename Vec<A, W>::type* v, A* sums) {
#if defined(__AVX512F__)
  if constexpr (W == 16 && sizeof(A) == 4) {
    __m512 a, b, c, d;
    memcpy(&a, v, 64), memcpy(&b, v + 1, 64), memcpy(&c, v + 2, 64), memcpy(&d, v + 3, 64);
    __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    __m512 s = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    s = _mm512_add_ps(s, _mm512_permute_ps(s, 0x4e));
    s = _mm512_add_ps(s, _mm512_permute_ps(s, 0xb1));
    __m512i every4th = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
    _mm_storeu_ps(sums, _mm512_castps512_ps128(_mm512_permutexvar_ps(every4th, s)));
    return;
  }
#endif
#if defined(__AVX__)
  if constexpr (W == 8 && sizeof(A) == 4) {
    __m256 a, b, c, d;
    memcpy(&a, v, 32), memcpy(&b, v + 1, 32), memcpy(&c, v + 2, 32), memcpy(&d, v + 3, 32);
    __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
    return;
  }
#endif
  for (int i = 0; i < 4; ++i) sums[i] = sum_of<A, W>(v[i]);
}

// exp of W numbers that are not positive, within 2 ulp.  NaN stays.
template <int W>
INLINE void exp_of(float* numbers) {
  typedef typename Vec<float, W>::type V;
  typedef typename Vec<uint32_t, W>::type U;
  V x = load<float, W>(numbers);
  const V lowest = V{} - 87.0f, magic = V{} + 12582912.0f;  // adding it rounds: the integer is in the low bits
  x = x < lowest ? lowest : x;
  const V shifted = x * 1.44269504088896341f + magic;
  const V n = shifted - magic;
  V r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  V p = V{} + 1.9875691500e-4f;  // Cephes expf
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const U power = (bits_as<U>(shifted) + 127u) << 23;
  store<float, W>(numbers, p * bits_as<V>(power));
}
template <int W>
INLINE void exp_of(double* numbers) {
  for (int i = 0; i < W; ++i) numbers[i] = std::exp(numbers[i]);
}

// One head's D channels as N vectors; D = 0 stands for any number, taken one by one.
template <class A, int D>
struct Slice {
  static constexpr int FULL = VECTOR_BYTES / int(sizeof(A));
  static constexpr int W = D < FULL ? D : FULL;
  static constexpr int N = D / W;
  typedef typename Vec<A, W>::type V;
};

// --- memory --------------------------------------------------------------------------------------------------

constexpr size_t HUGE_PAGE = size_t(1) << 21;

// Memory that is about to be filled comes in pages of 2 MiB where the kernel leaves that to the program: a base
// gradient is 190 MB, which otherwise means 46,000 page faults.
void ask_for_huge_pages(void* memory, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  const uintptr_t first = (uintptr_t(memory) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
  const uintptr_t end = (uintptr_t(memory) + uintptr_t(bytes)) / HUGE_PAGE * HUGE_PAGE;
  if (memory && first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
#else
  (void)memory, (void)bytes;
#endif
}

// Zeros.  Large areas come from the kernel, which has to clear them anyway.
template <class A>
struct Area {
  A* numbers = nullptr;

  explicit Area(int64_t count) : bytes_(size_t(count) * sizeof(A) + 64) {
    if (bytes_ < HUGE_PAGE) {
      if (posix_memalign(&memory_, 64, bytes_)) memory_ = nullptr;
      if (memory_) memset(memory_, 0, bytes_);
      numbers = static_cast<A*>(memory_);
      return;
    }
    mapped_ = (bytes_ + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE + HUGE_PAGE;
    memory_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) {
      memory_ = nullptr;
      mapped_ = 0;
      return;
    }
    numbers = reinterpret_cast<A*>((uintptr_t(memory_) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    ask_for_huge_pages(numbers, int64_t(mapped_ - HUGE_PAGE));
  }
  Area(const Area&) = delete;
  Area& operator=(const Area&) = delete;
  ~Area() {
    if (mapped_)
      munmap(memory_, mapped_);
    else
      free(memory_);
  }

 private:
  void* memory_ = nullptr;
  size_t bytes_, mapped_ = 0;
};

// --- the work of a call --------------------------------------------------------------------------------------

typedef void (*Parallel)(void (*)(void*), void*, unsigned, unsigned);  // libgomp's GOMP_parallel
Parallel parallel_of_torch = nullptr;
int started_in_fork = 0;
pid_t process = 0;

struct Team {
  void (*unit)(void*, int64_t);
  void* context;
  int64_t units;
  std::atomic<int64_t> next;
  unsigned threads;
};

void take_units(void* team_) {
  Team& team = *static_cast<Team*>(team_);
  for (int64_t i; (i = team.next.fetch_add(1, std::memory_order_relaxed)) < team.units;) team.unit(team.context, i);
}

void* lead_team(void* team_) {
  parallel_of_torch(take_units, team_, static_cast<Team*>(team_)->threads, 0);
  return nullptr;
}

// unit(context, 0 .. units - 1), each once, by whichever thread is free.
void run(void (*unit)(void*, int64_t), void* context, int64_t units, int64_t threads) {
  Team team{unit, context, units, {0}, unsigned(threads < units ? threads : units)};
  if (team.threads <= 1 || !parallel_of_torch) return take_units(&team);
  if (started_in_fork || getpid() != process) {
    // After a fork libgomp still believes in the parent's threads and would wait for them for ever.  What it
    // believes hangs on the thread that asks, and a new thread gets new ones.
    pthread_t leader;
    if (pthread_create(&leader, nullptr, lead_team, &team)) return take_units(&team);
    pthread_join(leader, nullptr);
    return;
  }
  lead_team(&team);
}

template <class A>
struct Samples {  // of several heads of a row, or of a head of several; what lies behind them is never used
  alignas(64) A x[MAX_SAMPLES] = {}, y[MAX_SAMPLES] = {};  // offsets, in cells
  alignas(64) A logit[MAX_SAMPLES] = {};
  alignas(64) A weight[MAX_SAMPLES];                   // after the softmax
  alignas(64) A fx[MAX_SAMPLES], fy[MAX_SAMPLES];      // where between its four cells a sample lies
  alignas(64) A w00[MAX_SAMPLES], w01[MAX_SAMPLES], w10[MAX_SAMPLES], w11[MAX_SAMPLES];
  alignas(64) int32_t cell[MAX_SAMPLES];               // the upper left one
  alignas(64) int32_t corners[MAX_SAMPLES];            // bits of those that exist: 1 upper left, 2 upper right, 4, 8
  alignas(64) A poison[MAX_SAMPLES];                   // 0, or NaN where one of the group is not finite
};
enum : int32_t { NO_CORNER = 0, ALL_CORNERS = 15 };

// Samples that are placed together, as the few of one row and head would leave most of a vector, and the time
// until its result is there, unused: `copies` groups of `count`, each of one row and head.  first: of these in
// their row and head, whose other levels belong to another owner.
struct Part {
  int64_t level, levels;
  int first, count, copies;
};

int padded(int count) { return (count + PAD - 1) / PAD * PAD; }

template <class A>
struct Job {
  const Call& call;
  int samples;  // L * P
  const int32_t* slot = nullptr;  // spatial backward: a visit's place in `pieces`, -1 where its row has no other
  A* pieces = nullptr;            // (slots, H, L * P, 3): gradients of x, y and logit
  std::atomic<int> failed{0};

  explicit Job(const Call& c) : call(c), samples(int(c.levels * c.points_per_level)) {}

  Part part(int64_t level, int64_t levels, int copies) const {
    const int points = int(call.points_per_level);
    return Part{level, levels, int(level) * points, int(levels) * points, copies};
  }

  int heads_at_once() const {
    int heads = int(call.heads);
    while (heads > 1 && (call.heads % heads || heads * samples > MAX_SAMPLES || heads * call.depth > MAX_DEPTH))
      --heads;
    return heads;
  }
};

template <class A>
INLINE void read_row(const void* from, int64_t kind, int64_t start, int n, A* __restrict to) {
  if (kind == FLOAT32) {
    const float* p = static_cast<const float*>(from) + start;
    for (int i = 0; i < n; ++i) to[i] = A(p[i]);
  } else if (kind == FLOAT64) {
    const double* p = static_cast<const double*>(from) + start;
    for (int i = 0; i < n; ++i) to[i] = A(p[i]);
  } else {
    const bf16* p = static_cast<const bf16*>(from) + start;
    for (int i = 0; i < n; ++i) to[i] = widen<A>(p[i]);
  }
}

template <class A>
INLINE void read_pairs(const void* from, int64_t kind, int64_t start, int n, A* __restrict x, A* __restrict y) {
  if (kind == FLOAT32) {
    const float* p = static_cast<const float*>(from) + start;
    for (int i = 0; i < n; ++i) x[i] = A(p[2 * i]), y[i] = A(p[2 * i + 1]);
  } else if (kind == FLOAT64) {
    const double* p = static_cast<const double*>(from) + start;
    for (int i = 0; i < n; ++i) x[i] = A(p[2 * i]), y[i] = A(p[2 * i + 1]);
  } else {
    const bf16* p = static_cast<const bf16*>(from) + start;
    for (int i = 0; i < n; ++i) x[i] = widen<A>(p[2 * i]), y[i] = widen<A>(p[2 * i + 1]);
  }
}

template <class A>
INLINE void write_row(void* to, int64_t kind, int64_t start, int n, const A* __restrict from) {
  if (kind == FLOAT32) {
    float* p = static_cast<float*>(to) + start;
    for (int i = 0; i < n; ++i) p[i] = float(from[i]);
  } else if (kind == FLOAT64) {
    double* p = static_cast<double*>(to) + start;
    for (int i = 0; i < n; ++i) p[i] = double(from[i]);
  } else {
    bf16* p = static_cast<bf16*>(to) + start;
    for (int i = 0; i < n; ++i) p[i] = Narrow<bf16>::of(from[i]);
  }
}

template <class A>
INLINE void write_pairs(void* to, int64_t kind, int64_t start, int n, const A* __restrict x, const A* __restrict y) {
  if (kind == FLOAT32) {
    float* p = static_cast<float*>(to) + start;
    for (int i = 0; i < n; ++i) p[2 * i] = float(x[i]), p[2 * i + 1] = float(y[i]);
  } else if (kind == FLOAT64) {
    double* p = static_cast<double*>(to) + start;
    for (int i = 0; i < n; ++i) p[2 * i] = double(x[i]), p[2 * i + 1] = double(y[i]);
  } else {
    bf16* p = static_cast<bf16*>(to) + start;
    for (int i = 0; i < n; ++i) p[2 * i] = Narrow<bf16>::of(x[i]), p[2 * i + 1] = Narrow<bf16>::of(y[i]);
  }
}

// The larger (or the sum) of the W numbers BY, 2 BY, ... apart, everywhere.
template <class A, int W, int BY>
INLINE typename Vec<A, W>::type top_across(typename Vec<A, W>::type v) {
  if constexpr (BY > 0) {
    const typename Vec<A, W>::type other = swapped<A, W, BY>(v);
    return top_across<A, W, BY / 2>(other > v ? other : v);
  }
  return v;
}
template <class A, int W, int BY>
INLINE typename Vec<A, W>::type sum_across(const typename Vec<A, W>::type& v) {
  if constexpr (BY > 0) return sum_across<A, W, BY / 2>(v + swapped<A, W, BY>(v));
  return v;
}

// W numbers of one or several groups of SIZE, or a group as several vectors.  Sums are taken in halves: a chain of
// additions would wait for each.
template <class A, int SIZE>
struct Groups {
  static constexpr int W = VECTOR_BYTES / int(sizeof(A));
  static constexpr int N = SIZE > W ? SIZE / W : 1, LANES = SIZE > W ? W : SIZE;
  typedef typename Vec<A, W>::type V;

  static INLINE V top(const V* v) {
    V half[N];
    for (int k = 0; k < N; ++k) half[k] = v[k];
    for (int m = N / 2; m; m /= 2)
      for (int k = 0; k < m; ++k) half[k] = half[k + m] > half[k] ? half[k + m] : half[k];
    return top_across<A, W, LANES / 2>(half[0]);
  }
  static INLINE V sum(const V* v) {
    V half[N];
    for (int k = 0; k < N; ++k) half[k] = v[k];
    for (int m = N / 2; m; m /= 2)
      for (int k = 0; k < m; ++k) half[k] += half[k + m];
    return sum_across<A, W, LANES / 2>(half[0]);
  }
};

// Softmax over each group of SIZE of the n numbers.
template <class A, int SIZE>
INLINE void softmax(const A* __restrict logit, A* __restrict x, int n) {
  typedef Groups<A, SIZE> G;
  for (int g = 0; g < padded(n); g += G::N * G::W) {
    typename G::V v[G::N];
    for (int k = 0; k < G::N; ++k) v[k] = load<A, G::W>(logit + g + k * G::W);
    const typename G::V top = G::top(v);
    for (int k = 0; k < G::N; ++k) {
      store<A, G::W>(x + g + k * G::W, v[k] - top);
      exp_of<G::W>(x + g + k * G::W);
      v[k] = load<A, G::W>(x + g + k * G::W);
    }
    const typename G::V share = A(1) / G::sum(v);
    for (int k = 0; k < G::N; ++k) store<A, G::W>(x + g + k * G::W, v[k] * share);
  }
}

// The same for any size.
template <class A>
void softmax_any(const A* __restrict logit, A* __restrict x, int n, int size) {
  constexpr int W = VECTOR_BYTES / int(sizeof(A));
  for (int g = 0; g < n; g += size) {
    A top = logit[g];
    for (int i = 1; i < size; ++i) top = logit[g + i] > top ? logit[g + i] : top;
    for (int i = 0; i < size; ++i) x[g + i] = logit[g + i] - top;
  }
  for (int i = n; i < padded(n); ++i) x[i] = 0;
  for (int i = 0; i < padded(n); i += W) exp_of<W>(x + i);
  for (int g = 0; g < n; g += size) {
    A sum = x[g];
    for (int i = 1; i < size; ++i) sum += x[g + i];
    const A share = A(1) / sum;
    for (int i = 0; i < size; ++i) x[g + i] *= share;
  }
}

// The reference points in cells, one per sample: what the offsets are added to.
template <class A>
struct References {
  alignas(64) A x[MAX_SAMPLES], y[MAX_SAMPLES];
  alignas(64) A width[MAX_SAMPLES], height[MAX_SAMPLES];  // of each sample's level
  alignas(64) int32_t line[MAX_SAMPLES];

  References(const Call& c, const Part& part) {
    int i = 0;
    for (int copy = 0; copy < part.copies; ++copy)
      for (int64_t l = part.level; l < part.level + part.levels; ++l)
        for (int64_t p = 0; p < c.points_per_level; ++p, ++i) {
          width[i] = A(c.level_w[l]);
          height[i] = A(c.level_h[l]);
          line[i] = int32_t(c.level_w[l]);
        }
    const int end = i;
    for (i = 0; i < padded(end); ++i) x[i] = y[i] = A(-2);  // outside
    for (i = end; i < padded(end); ++i) width[i] = height[i] = 0, line[i] = 0;
  }

  void place(const Job<A>& job, const Part& part, int copy, int64_t map, int64_t index) {
    const Call& c = job.call;
    const A* points = static_cast<const A*>(c.points) + map * c.point_map_stride + index * c.point_row_stride;
    int i = copy * part.count;
    for (int64_t l = part.level; l < part.level + part.levels; ++l) {
      const A* at = points + l * c.point_level_stride;
      const A w = A(c.level_w[l]), h = A(c.level_h[l]);
      for (int64_t p = 0; p < c.points_per_level; p += c.references)
        for (int64_t z = 0; z < c.references; ++z, ++i) {
          x[i] = at[2 * z] * w - A(0.5);
          y[i] = at[2 * z + 1] * h - A(0.5);
        }
    }
  }

  void repeat_first(const Part& part) {
    for (int i = part.count; i < part.copies * part.count; ++i) x[i] = x[i - part.count], y[i] = y[i - part.count];
  }
};

// Where samples 0 .. n - 1 lie.  Locations become integers only when they are known to be inside: they may be
// infinite, not a number, or larger than any integer.
template <class A>
void place_samples(const Part& part, int n, const References<A>& ref, Samples<A>& s) {
  int32_t bad = 0;
  for (int i = 0; i < padded(n); ++i) {
    const A x = ref.x[i] + s.x[i], y = ref.y[i] + s.y[i];
    const A finite = (x - x) + (y - y) + (s.weight[i] - s.weight[i]);  // 0, or NaN
    s.poison[i] = finite;
    bad |= int32_t(!(finite == 0));
    const bool in = (x >= A(-1)) & (x < ref.width[i]) & (y >= A(-1)) & (y < ref.height[i]);
    const A inner_x = in ? x : A(0), inner_y = in ? y : A(0);
    const A x0 = std::floor(inner_x), y0 = std::floor(inner_y);
    const int32_t left = x0 >= 0 ? 5 : 0, right = x0 < ref.width[i] - 1 ? 10 : 0;
    const int32_t upper = y0 >= 0 ? 3 : 0, lower = y0 < ref.height[i] - 1 ? 12 : 0;
    s.corners[i] = in ? (left | right) & (upper | lower) : 0;
    s.cell[i] = int32_t(y0) * ref.line[i] + int32_t(x0);
    const A fx = inner_x - x0, fy = inner_y - y0;
    const A below = s.weight[i] * fy, above = s.weight[i] - below;
    s.fx[i] = fx;
    s.fy[i] = fy;
    s.w01[i] = above * fx;
    s.w00[i] = above - above * fx;
    s.w11[i] = below * fx;
    s.w10[i] = below - below * fx;
  }
  if (!bad) return;
  for (int first = 0; first < n; first += part.count) {
    A sum = 0;
    for (int i = first; i < first + part.count; ++i) sum += s.poison[i];
    for (int i = first; i < first + part.count; ++i) s.poison[i] = sum;
  }
}

// Offsets and logits from sample `start` of all on become samples to .. to + n - 1.
template <class A>
INLINE void read_samples(const Call& c, int64_t start, int n, int to, Samples<A>& s) {
  read_pairs(c.offsets, c.offsets_kind, 2 * start, n, s.x + to, s.y + to);
  read_row(c.logits, c.logits_kind, start, n, s.logit + to);
}

template <class A>
void weigh(const Call& c, int n, Samples<A>& s) {
  const int size = int(c.softmax_levels * c.points_per_level);
  switch (size) {
    case 4: return softmax<A, 4>(s.logit, s.weight, n);
    case 8: return softmax<A, 8>(s.logit, s.weight, n);
    case 32: return softmax<A, 32>(s.logit, s.weight, n);
    default: return softmax_any(s.logit, s.weight, n, size);
  }
}

// --- forward -------------------------------------------------------------------------------------------------

// Adds the samples first, first + 1, ... of one row and head to its D sums.
template <class A, class T, int D>
INLINE void gather(const Job<A>& job, const T* map, const Samples<A>& s, int first, A* sums) {
  typedef Slice<A, D> S;
  const Call& c = job.call;
  const int64_t step = c.cell_stride;
  const int points = int(c.points_per_level);
  typename S::V acc[S::N];
  for (int n = 0; n < S::N; ++n) acc[n] = load<A, S::W>(sums + n * S::W);
  for (int64_t l = 0; l < c.levels; ++l) {
    const T* level = map + c.level_start[l];
    const int64_t down = c.level_w[l] * step;
    for (int i = first + int(l) * points; i < first + (int(l) + 1) * points; ++i) {
      const int32_t corners = s.corners[i];
      if (corners == NO_CORNER) continue;
      const T* cell = level + s.cell[i] * step;
      if (corners == ALL_CORNERS) {
        const A w00 = s.w00[i], w01 = s.w01[i], w10 = s.w10[i], w11 = s.w11[i];
        for (int n = 0; n < S::N; ++n) {  // into acc only at the end: one addition is waited for, not four
          typename S::V v = load<A, S::W>(cell + n * S::W) * w00;
          v += load<A, S::W>(cell + step + n * S::W) * w01;
          v += load<A, S::W>(cell + down + n * S::W) * w10;
          v += load<A, S::W>(cell + down + step + n * S::W) * w11;
          acc[n] += v;
        }
        continue;
      }
      const A weights[4] = {s.w00[i], s.w01[i], s.w10[i], s.w11[i]};
      for (int k = 0; k < 4; ++k)
        if (corners >> k & 1)
          for (int n = 0; n < S::N; ++n)
            acc[n] += load<A, S::W>(cell + (k & 1) * step + (k >> 1) * down + n * S::W) * weights[k];
    }
  }
  for (int n = 0; n < S::N; ++n) store<A, S::W>(sums + n * S::W, acc[n]);
}

// The same for any D.
template <class A, class T>
void gather_any(const Job<A>& job, const T* map, const Samples<A>& s, int first, A* sums) {
  const Call& c = job.call;
  const int points = int(c.points_per_level), depth = int(c.depth);
  for (int i = first; i < first + job.samples; ++i) {
    if (s.corners[i] == NO_CORNER) continue;
    const int64_t l = (i - first) / points;
    const T* cell = map + c.level_start[l] + s.cell[i] * c.cell_stride;
    const A weights[4] = {s.w00[i], s.w01[i], s.w10[i], s.w11[i]};
    for (int k = 0; k < 4; ++k) {
      if (!(s.corners[i] >> k & 1)) continue;
      const T* at = cell + ((k & 1) + (k >> 1) * c.level_w[l]) * c.cell_stride;
      for (int d = 0; d < depth; ++d) sums[d] += widen<A>(at[d]) * weights[k];
    }
  }
}

template <class A, class T, int D>
struct Forward {
  static void unit(void* job_, int64_t chunk) {
    const Job<A>& job = *static_cast<const Job<A>*>(job_);
    const Call& c = job.call;
    const int64_t last = (chunk + 1) * ROWS_PER_CHUNK < c.rows ? (chunk + 1) * ROWS_PER_CHUNK : c.rows;
    const Part part = job.part(0, c.levels, job.heads_at_once());
    Samples<A> samples;
    References<A> references(c, part);
    for (int64_t row = chunk * ROWS_PER_CHUNK; row < last; ++row) one_row(job, part, row, samples, references);
  }

  static void one_row(const Job<A>& job, const Part& part, int64_t row, Samples<A>& samples,
                      References<A>& references) {
    const Call& c = job.call;
    const int n = part.copies * part.count;
    const int64_t rows_per_map = c.starts ? 0 : c.rows / c.maps;
    const int64_t first = c.starts ? c.starts[row] : row, end = c.starts ? c.starts[row + 1] : row + 1;
    const A share = A(c.scale / (end - first > 1 ? double(end - first) : 1.0));
    const int64_t depth = D ? D : c.depth;
    alignas(64) A sums[MAX_DEPTH];
    for (int64_t head = 0; head < c.heads; head += part.copies) {
      for (int64_t d = 0; d < part.copies * depth; ++d) sums[d] = 0;
      if (first < end) {
        read_samples(c, (row * c.heads + head) * job.samples, n, 0, samples);
        weigh(c, n, samples);
      }
      for (int64_t visit = first; visit < end; ++visit) {
        const int64_t map = c.starts ? c.visit_map[visit] : row / rows_per_map;
        if (head == 0 || end - first > 1) {
          references.place(job, part, 0, c.starts ? 0 : map, c.starts ? visit : row - map * rows_per_map);
          references.repeat_first(part);
        }
        place_samples(part, n, references, samples);
        add_heads(job, part, static_cast<const T*>(c.value) + map * c.map_stride + head * depth, samples, sums);
      }
      T* out = static_cast<T*>(c.out) + (row * c.heads + head) * depth;
      for (int64_t d = 0; d < part.copies * depth; ++d) out[d] = Narrow<T>::of(sums[d] * share);
    }
  }

  // Not inline: among all that a row needs, a compiler runs out of registers for the innermost loop.
  static __attribute__((noinline)) void add_heads(const Job<A>& job, const Part& part, const T* values,
                                                  const Samples<A>& samples, A* sums) {
    const int64_t depth = D ? D : job.call.depth;
    for (int head = 0; head < part.copies; ++head, values += depth, sums += depth) {
      const int first = head * part.count;
      if constexpr (D != 0)
        gather<A, T, D>(job, values, samples, first, sums);
      else
        gather_any<A, T>(job, values, samples, first, sums);
      for (int64_t d = 0; d < depth; ++d) sums[d] += samples.poison[first];
    }
  }
};

// --- backward ------------------------------------------------------------------------------------------------

// Products of the output's gradient with the four cells of each sample, and, unless `area` is null, that
// gradient spread over the cells.  area: the gradient of this head's slice of the map, D numbers per cell.
template <class A, class T, int D>
INLINE void scatter(const Job<A>& job, const Part& part, const T* map, const Samples<A>& s, int first,
                    const A* grad, A* area, A* dots) {
  typedef Slice<A, D> S;
  const Call& c = job.call;
  const int64_t step = c.cell_stride;
  const int points = int(c.points_per_level);
  typename S::V g[S::N];
  for (int n = 0; n < S::N; ++n) g[n] = load<A, S::W>(grad + n * S::W);
  for (int64_t l = 0; l < part.levels; ++l) {
    const int64_t level = part.level + l, across = c.level_w[level];
    const T* values = map + c.level_start[level];
    A* mine = area ? area + (c.level_cell[level] - c.level_cell[part.level]) * D : nullptr;
    for (int i = first + int(l) * points; i < first + (int(l) + 1) * points; ++i) {
      const int32_t corners = s.corners[i];
      if (corners == NO_CORNER) {
        for (int k = 0; k < 4; ++k) dots[4 * i + k] = 0;
        continue;
      }
      const T* cell = values + s.cell[i] * step;
      const A weights[4] = {s.w00[i], s.w01[i], s.w10[i], s.w11[i]};
      if (corners == ALL_CORNERS) {
        typename S::V dot[4];
        for (int k = 0; k < 4; ++k) {
          const T* at = cell + (k & 1) * step + (k >> 1) * across * step;
          dot[k] = load<A, S::W>(at) * g[0];
          for (int n = 1; n < S::N; ++n) dot[k] += load<A, S::W>(at + n * S::W) * g[n];
        }
        sums_of_4<A, S::W>(dot, dots + 4 * i);
        if (mine)
          for (int k = 0; k < 4; ++k) {
            A* at = mine + (s.cell[i] + (k & 1) + (k >> 1) * across) * D;
            for (int n = 0; n < S::N; ++n)
              store<A, S::W>(at + n * S::W, load<A, S::W>(at + n * S::W) + g[n] * weights[k]);
          }
        continue;
      }
      for (int k = 0; k < 4; ++k) {
        dots[4 * i + k] = 0;
        if (!(corners >> k & 1)) continue;
        const int64_t to = (k & 1) + (k >> 1) * across;
        typename S::V dot = load<A, S::W>(cell + to * step) * g[0];
        for (int n = 1; n < S::N; ++n) dot += load<A, S::W>(cell + to * step + n * S::W) * g[n];
        dots[4 * i + k] = sum_of<A, S::W>(dot);
        if (mine) {
          A* at = mine + (s.cell[i] + to) * D;
          for (int n = 0; n < S::N; ++n)
            store<A, S::W>(at + n * S::W, load<A, S::W>(at + n * S::W) + g[n] * weights[k]);
        }
      }
    }
  }
}

// The same for any D.
template <class A, class T>
void scatter_any(const Job<A>& job, const Part& part, const T* map, const Samples<A>& s, int first,
                 const A* grad, A* area, A* dots) {
  const Call& c = job.call;
  const int points = int(c.points_per_level), depth = int(c.depth);
  for (int i = first; i < first + part.count; ++i) {
    const int64_t l = part.level + (i - first) / points;
    const A weights[4] = {s.w00[i], s.w01[i], s.w10[i], s.w11[i]};
    for (int k = 0; k < 4; ++k) {
      dots[4 * i + k] = 0;
      if (!(s.corners[i] >> k & 1)) continue;
      const int64_t to = s.cell[i] + (k & 1) + (k >> 1) * c.level_w[l];
      const T* at = map + c.level_start[l] + to * c.cell_stride;
      A dot = 0;
      for (int d = 0; d < depth; ++d) dot += widen<A>(at[d]) * grad[d];
      dots[4 * i + k] = dot;
      if (!area) continue;
      A* mine = area + (c.level_cell[l] - c.level_cell[part.level] + to) * depth;
      for (int d = 0; d < depth; ++d) mine[d] += grad[d] * weights[k];
    }
  }
}

template <class A>
struct Gradients {
  alignas(64) A x[MAX_SAMPLES], y[MAX_SAMPLES], logit[MAX_SAMPLES];
};

// Softmax's own backward pass: from grad, less its mean over the group, times the weight, to grad.  weighted:
// grad times weight.
template <class A, int SIZE>
INLINE void through_softmax(const A* __restrict weight, const A* __restrict weighted, A* __restrict grad, int n) {
  typedef Groups<A, SIZE> G;
  for (int g = 0; g < padded(n); g += G::N * G::W) {
    typename G::V v[G::N];
    for (int k = 0; k < G::N; ++k) v[k] = load<A, G::W>(weighted + g + k * G::W);
    const typename G::V mean = G::sum(v);
    for (int i = g; i < g + G::N * G::W; i += G::W)
      store<A, G::W>(grad + i, load<A, G::W>(weight + i) * (load<A, G::W>(grad + i) - mean));
  }
}

template <class A>
void through_softmax_any(const A* __restrict weight, const A* __restrict weighted, A* __restrict grad, int n,
                         int size) {
  for (int g = 0; g < n; g += size) {
    A mean = weighted[g];
    for (int i = g + 1; i < g + size; ++i) mean += weighted[i];
    for (int i = g; i < g + size; ++i) grad[i] = weight[i] * (grad[i] - mean);
  }
}

// From the products to the gradients of x, y and logit, of samples 0 .. n - 1.
template <class A>
void finish(const Call& c, int n, const Samples<A>& s, const A* __restrict dots, Gradients<A>& to) {
  alignas(64) A weighted[MAX_SAMPLES];
  for (int i = 0; i < n; ++i) {
    const A d00 = dots[4 * i], d01 = dots[4 * i + 1], d10 = dots[4 * i + 2], d11 = dots[4 * i + 3];
    const A fx = s.fx[i], fy = s.fy[i], weight = s.weight[i];
    const A upper = d00 + fx * (d01 - d00), lower = d10 + fx * (d11 - d10);
    const A sample = upper + fy * (lower - upper);
    to.x[i] = weight * ((d01 - d00) + fy * ((d11 - d10) - (d01 - d00))) + s.poison[i];
    to.y[i] = weight * (lower - upper) + s.poison[i];
    to.logit[i] = sample + s.poison[i];
    weighted[i] = weight * sample;
  }
  for (int i = n; i < padded(n); ++i) to.logit[i] = weighted[i] = 0;
  const int size = int(c.softmax_levels * c.points_per_level);
  switch (size) {
    case 4: return through_softmax<A, 4>(s.weight, weighted, to.logit, n);
    case 8: return through_softmax<A, 8>(s.weight, weighted, to.logit, n);
    case 32: return through_softmax<A, 32>(s.weight, weighted, to.logit, n);
    default: return through_softmax_any(s.weight, weighted, to.logit, n, size);
  }
}

// A row visited: `visit` of the pairs in spatial attention, else the row's number within its map.
struct Visit {
  int64_t row, visit;
};

// The gradients of a visit's offsets and logits go to their place, or where the row's other visits leave theirs.
template <class A>
void keep(const Job<A>& job, const Part& part, const Visit& at, int64_t head, int first, const Gradients<A>& from) {
  const Call& c = job.call;
  const int n = part.count;
  const A *x = from.x + first, *y = from.y + first, *logit = from.logit + first;
  if (job.slot && job.slot[at.visit] >= 0) {
    A* piece = job.pieces + (int64_t(job.slot[at.visit]) * c.heads + head) * job.samples * 3;
    for (int i = 0; i < n; ++i) piece[2 * i] = x[i], piece[2 * i + 1] = y[i];
    for (int i = 0; i < n; ++i) piece[2 * n + i] = logit[i];
    return;
  }
  const int64_t to = (at.row * c.heads + head) * job.samples + part.first;
  write_pairs(c.grad_offsets, c.offsets_kind, 2 * to, n, x, y);
  write_row(c.grad_logits, c.logits_kind, to, n, logit);
}

template <class A, class T, int D>
struct Backward {
  // One head of one map, or of one of its levels.
  static void unit(void* job_, int64_t index) {
    Job<A>& job = *static_cast<Job<A>*>(job_);
    const Call& c = job.call;
    const int64_t owners = c.split_levels ? c.levels : 1;
    const int64_t head = index % c.heads, level = index / c.heads % owners, map = index / c.heads / owners;
    const Part part = c.split_levels ? job.part(level, 1, together(c.points_per_level))
                                     : job.part(0, c.levels, together(job.samples));
    const int64_t depth = D ? D : c.depth;
    const int64_t cells = c.split_levels ? c.level_h[level] * c.level_w[level] : c.cells_per_map;
    const Area<A> memory(c.grad_value ? cells * depth : 0);
    A* area = c.grad_value ? memory.numbers : nullptr;
    if (c.grad_value && !area) {
      job.failed = 1;
      return;
    }
    Samples<A> samples;
    References<A> references(c, part);
    const int64_t rows = c.starts ? c.map_starts[map + 1] - c.map_starts[map] : c.rows / c.maps;
    for (int64_t i = 0; i < rows; i += part.copies) {
      Visit visits[VISITS];
      const int count = int(rows - i < part.copies ? rows - i : part.copies);
      for (int k = 0; k < count; ++k) {
        if (c.starts) {
          const int32_t visit = c.by_map[c.map_starts[map] + i + k];
          visits[k] = Visit{c.visit_row[visit], visit};
          references.place(job, part, k, 0, visit);
        } else {
          visits[k] = Visit{map * rows + i + k, i + k};
          references.place(job, part, k, map, i + k);
        }
      }
      some_visits(job, part, map, head, visits, count, samples, references, area);
    }
    if (!area) return;
    const int64_t first = map * c.cells_per_map + (c.split_levels ? c.level_cell[level] : 0);
    T* out = static_cast<T*>(c.grad_value) + (first * c.heads + head) * depth;
    for (int64_t s = 0; s < cells; ++s)
      for (int64_t d = 0; d < depth; ++d) out[s * c.heads * depth + d] = Narrow<T>::of(area[s * depth + d]);
  }

  static constexpr int VISITS = 16;

  // More would not stay in the first-level cache.
  static int together(int64_t samples) { return samples > 32 ? 1 : samples > 4 ? int(64 / samples) : VISITS; }

  static void some_visits(Job<A>& job, const Part& part, int64_t map, int64_t head, const Visit* visits, int count,
                          Samples<A>& samples, const References<A>& references, A* area) {
    const Call& c = job.call;
    const int64_t depth = D ? D : c.depth;
    const T* values = static_cast<const T*>(c.value) + map * c.map_stride + head * depth;
    alignas(64) A grad[MAX_DEPTH], dots[4 * MAX_SAMPLES];
    Gradients<A> gradients;
    const int n = count * part.count;
    for (int k = 0; k < count; ++k)
      read_samples(c, (visits[k].row * c.heads + head) * job.samples + part.first, part.count, k * part.count,
                   samples);
    weigh(c, n, samples);
    place_samples(part, n, references, samples);
    for (int k = 0; k < count; ++k) {
      const int64_t row = visits[k].row;
      const A share = A(c.scale / (c.starts ? double(c.starts[row + 1] - c.starts[row]) : 1.0));
      const T* from = static_cast<const T*>(c.grad) + (row * c.heads + head) * depth;
      for (int64_t d = 0; d < depth; ++d) grad[d] = widen<A>(from[d]) * share;
      if constexpr (D != 0)
        scatter<A, T, D>(job, part, values, samples, k * part.count, grad, area, dots);
      else
        scatter_any<A, T>(job, part, values, samples, k * part.count, grad, area, dots);
    }
    finish(c, n, samples, dots, gradients);
    for (int k = 0; k < count; ++k) keep(job, part, visits[k], head, k * part.count, gradients);
  }

  // Spatial: rows that no camera sees, or several.
  static void other_rows(void* job_, int64_t chunk) {
    const Job<A>& job = *static_cast<const Job<A>*>(job_);
    const Call& c = job.call;
    const int64_t last = (chunk + 1) * ROWS_PER_CHUNK < c.rows ? (chunk + 1) * ROWS_PER_CHUNK : c.rows;
    const int n = job.samples;
    alignas(64) A sum[3 * MAX_SAMPLES];
    for (int64_t row = chunk * ROWS_PER_CHUNK; row < last; ++row) {
      if (c.starts[row + 1] - c.starts[row] == 1) continue;
      for (int64_t head = 0; head < c.heads; ++head) {
        for (int i = 0; i < 3 * n; ++i) sum[i] = 0;
        for (int64_t visit = c.starts[row]; visit < c.starts[row + 1]; ++visit) {
          const A* piece = job.pieces + (int64_t(job.slot[visit]) * c.heads + head) * n * 3;
          for (int i = 0; i < 3 * n; ++i) sum[i] += piece[i];
        }
        const int64_t at = (row * c.heads + head) * n;
        write_row(c.grad_offsets, c.offsets_kind, 2 * at, 2 * n, sum);
        write_row(c.grad_logits, c.logits_kind, at, n, sum + 2 * n);
      }
    }
  }
};

// --- calls ---------------------------------------------------------------------------------------------------

enum : int { FINE = 0, NO_MEMORY = 1, WRONG_PAIRS = 2, TOO_LARGE = 3, WRONG_KIND = 4 };

// Memory is only touched where the pairs point: they have to be what they say.
int check(const Call& c) {
  if (c.levels * c.points_per_level > MAX_SAMPLES - PAD || c.depth > MAX_DEPTH) return TOO_LARGE;
  const int64_t many = int64_t(1) << 24;  // cells are counted in int32, widths in float
  if (c.cells_per_map >= int64_t(1) << 31) return TOO_LARGE;
  for (int64_t l = 0; l < c.levels; ++l)
    if (c.level_h[l] >= many || c.level_w[l] >= many) return TOO_LARGE;
  if (!c.starts) return FINE;
  if (c.starts[0] != 0 || c.starts[c.rows] != c.visits) return WRONG_PAIRS;
  if (c.map_starts[0] != 0 || c.map_starts[c.maps] != c.visits) return WRONG_PAIRS;
  for (int64_t r = 0; r < c.rows; ++r)
    if (c.starts[r] > c.starts[r + 1]) return WRONG_PAIRS;
  for (int64_t m = 0; m < c.maps; ++m)
    if (c.map_starts[m] > c.map_starts[m + 1]) return WRONG_PAIRS;
  for (int64_t r = 0; r < c.rows; ++r)
    for (int64_t v = c.starts[r]; v < c.starts[r + 1]; ++v)
      if (c.visit_map[v] < 0 || c.visit_map[v] >= c.maps || c.visit_row[v] != r) return WRONG_PAIRS;
  for (int64_t m = 0; m < c.maps; ++m)
    for (int64_t i = c.map_starts[m]; i < c.map_starts[m + 1]; ++i) {
      const int32_t v = c.by_map[i];
      if (v < 0 || v >= c.visits || c.visit_map[v] != m) return WRONG_PAIRS;
      if (i > c.map_starts[m] && c.visit_row[c.by_map[i - 1]] >= c.visit_row[v]) return WRONG_PAIRS;
    }
  return FINE;
}

int64_t bytes_of(int64_t kind) { return kind == FLOAT64 ? 8 : kind == FLOAT32 ? 4 : 2; }

int64_t chunks(const Call& c) { return (c.rows + ROWS_PER_CHUNK - 1) / ROWS_PER_CHUNK; }

struct DoForward {
  template <class A, class T, int D>
  static int go(const Call& c) {
    Job<A> job(c);
    ask_for_huge_pages(c.out, c.rows * c.heads * c.depth * int64_t(sizeof(T)));
    run(Forward<A, T, D>::unit, &job, chunks(c), c.threads);
    return FINE;
  }
};

struct DoBackward {
  template <class A, class T, int D>
  static int go(const Call& c) {
    Job<A> job(c);
    int32_t* slot = nullptr;
    int64_t slots = 0;
    if (c.starts) {
      slot = static_cast<int32_t*>(malloc(size_t(c.visits + 1) * sizeof(int32_t)));
      if (!slot) return NO_MEMORY;
      for (int64_t r = 0; r < c.rows; ++r)
        for (int64_t v = c.starts[r]; v < c.starts[r + 1]; ++v)
          slot[v] = c.starts[r + 1] - c.starts[r] > 1 ? int32_t(slots++) : -1;
      job.pieces = static_cast<A*>(malloc(size_t(slots * c.heads * job.samples * 3 + 1) * sizeof(A)));
      if (!job.pieces) {
        free(slot);
        return NO_MEMORY;
      }
      job.slot = slot;
    }
    ask_for_huge_pages(c.grad_value, c.maps * c.cells_per_map * c.heads * c.depth * int64_t(sizeof(T)));
    ask_for_huge_pages(c.grad_offsets, c.rows * c.heads * job.samples * 2 * bytes_of(c.offsets_kind));
    ask_for_huge_pages(c.grad_logits, c.rows * c.heads * job.samples * bytes_of(c.logits_kind));
    const int64_t owners = c.maps * (c.split_levels ? c.levels : 1);
    run(Backward<A, T, D>::unit, &job, owners * c.heads, c.threads);
    if (c.starts && !job.failed) run(Backward<A, T, D>::other_rows, &job, chunks(c), c.threads);
    free(job.pieces);
    free(slot);
    return job.failed ? NO_MEMORY : FINE;
  }
};

template <class Do, class A, class T>
int by_depth(const Call& c) {
  switch (c.depth) {
    case 16: return Do::template go<A, T, 16>(c);
    case 32: return Do::template go<A, T, 32>(c);
    default: return Do::template go<A, T, 0>(c);
  }
}

template <class Do>
int by_kind(const Call& c) {
  const int wrong = check(c);
  if (wrong) return wrong;
  if (c.value_kind == FLOAT32 && c.compute_kind == FLOAT32) return by_depth<Do, float, float>(c);
  if (c.value_kind == BFLOAT16 && c.compute_kind == FLOAT32) return by_depth<Do, float, bf16>(c);
  if (c.value_kind == FLOAT64 && c.compute_kind == FLOAT64)
    return Do::template go<double, double, 0>(c);
  return WRONG_KIND;
}

}  // namespace

// parallel: GOMP_parallel of the OpenMP library that torch runs on, or null for one thread.
// in_fork: this process was forked without exec.
EXPORT void bevformer_start(void* parallel, int in_fork) {
  memcpy(&parallel_of_torch, &parallel, sizeof parallel);
  started_in_fork = in_fork;
  process = getpid();
}
EXPORT int64_t bevformer_size_of_call() { return int64_t(sizeof(Call)); }
EXPORT int bevformer_forward(const Call* call) { return by_kind<DoForward>(*call); }
EXPORT int bevformer_backward(const Call* call) { return by_kind<DoBackward>(*call); }

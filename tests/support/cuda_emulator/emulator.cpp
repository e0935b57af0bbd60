#undef _FORTIFY_SOURCE  // its longjmp refuses to change stacks
#include "device.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

namespace emulator {
namespace {

constexpr size_t kStackBytes = 64 * 1024;
constexpr long long kStuckTurns = 200'000'000;  // turns in which nothing moves on

struct Fiber {
  Thread thread;
  jmp_buf state;
  ucontext_t entry;
  bool started = false;
};

// Whether a fiber takes turns: apart from it, so that looking for the next one touches little memory.
struct Rest {
  const Barrier* barrier = nullptr;  // that it waits at
  unsigned generation = 0;  // of the barrier when it came
  bool parked = false;

  bool over() const { return !parked && (barrier == nullptr || barrier->generation != generation); }
};

struct Launch {
  Body body;
  void* argument;
  int blocks, threads, next_block = 0;
  size_t shared_bytes, finished = 0;
  std::vector<Fiber> fibers;
  std::vector<Rest> rests;  // of each fiber
  std::vector<size_t> order;  // in which fibers take turns
  size_t turn = 0;
  long long idle = 0;
  ucontext_t back;
};
Launch* current = nullptr;
int residents = 3, seed = 0, processors = 4;

Fiber& fiber() {
  return current->fibers[current->order[current->turn]];
}
Rest& rest() {
  return current->rests[current->order[current->turn]];
}

[[noreturn]] void abort_stuck() {
  std::fputs("emulator: every thread waits for another\n", stderr);
  std::abort();
}

void switch_to_next() {
  Fiber& mine = fiber();
  if (++current->idle > kStuckTurns) abort_stuck();
  const size_t fibers = current->order.size();
  size_t looked = 0;
  do {
    if (++current->turn == fibers) current->turn = 0;
    if (++looked > fibers) abort_stuck();
  } while (!rest().over());
  Fiber& next = fiber();
  if (&next == &mine || _setjmp(mine.state) != 0) return;
  if (next.started) _longjmp(next.state, 1);
  next.started = true;
  setcontext(&next.entry);
}

bool open_block(Block& block) {
  if (current->next_block == current->blocks) return false;
  block.index = current->next_block++;
  block.running = current->threads;
  std::memset(block.shared, 0xa5, current->shared_bytes);  // like a device, it starts with what was there
  return true;
}

// The life of a fiber: one thread of one block after another.
void live() {
  for (;;) {
    Fiber& mine = fiber();
    Block& block = *mine.thread.block;
    current->body(current->argument);
    current->idle = 0;
    Rest& mine_rests = rest();
    mine_rests.parked = true;
    if (--block.running == 0) {
      const bool more = open_block(block);
      for (size_t i = 0; i < current->fibers.size(); ++i)
        if (current->fibers[i].thread.block == &block) current->rests[i].parked = !more;
      if (!more && ++current->finished == current->fibers.size() / current->threads)
        setcontext(&current->back);
    }
    if (mine_rests.parked) switch_to_next();
  }
}

}  // namespace

Thread& self() {
  return fiber().thread;
}
void yield() {
  switch_to_next();
}

void wait(Barrier& barrier) {
  if (++barrier.arrived == barrier.expected) {
    barrier.arrived = 0;
    ++barrier.generation;
    current->idle = 0;
    return;
  }
  Rest& mine = rest();
  mine.barrier = &barrier;
  mine.generation = barrier.generation;
  switch_to_next();
  mine.barrier = nullptr;
}

void run(int blocks, int threads, size_t shared_bytes, Body body, void* argument) {
  const int resident = std::min(blocks, residents);
  const size_t fibers = static_cast<size_t>(resident) * threads;
  static unsigned char* const stacks =
      static_cast<unsigned char*>(mmap(nullptr, kStackBytes * 16 * 1024, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (stacks == MAP_FAILED || fibers > 16 * 1024 || threads % 32 != 0) std::abort();
  auto launch = std::make_unique<Launch>();
  current = launch.get();
  current->body = body;
  current->argument = argument;
  current->blocks = blocks;
  current->threads = threads;
  current->shared_bytes = shared_bytes;
  current->fibers.resize(fibers);
  current->rests.resize(fibers);
  current->order.resize(fibers);
  std::iota(current->order.begin(), current->order.end(), size_t{0});
  if (seed != 0) std::shuffle(current->order.begin(), current->order.end(), std::mt19937(seed));

  std::vector<Block> slots(resident);
  std::vector<Warp> warps(fibers / 32);
  // Exactly as long as asked for and 16-byte aligned only, so that a sanitizer sees what reads past it.
  std::vector<std::unique_ptr<unsigned char[]>> shared;
  for (int i = 0; i < resident; ++i) {
    shared.emplace_back(new unsigned char[shared_bytes + 1]);
    slots[i].barrier.expected = threads;
    slots[i].shared = shared.back().get();
    slots[i].warps = &warps[static_cast<size_t>(i) * threads / 32];
    open_block(slots[i]);
  }
  for (size_t i = 0; i < fibers; ++i) {
    Fiber& made = current->fibers[i];
    made.thread.index = static_cast<int>(i % threads);
    made.thread.block = &slots[i / threads];
    getcontext(&made.entry);
    made.entry.uc_stack.ss_sp = stacks + i * kStackBytes;
    made.entry.uc_stack.ss_size = kStackBytes;
    makecontext(&made.entry, live, 0);
  }
  fiber().started = true;
  swapcontext(&current->back, &fiber().entry);
  current = nullptr;
}

}  // namespace emulator

const char* multiprocessors(int& count) {
  count = emulator::processors;
  return nullptr;
}

// blocks that run side by side; a seed for the order of threads, 0 for theirs; multiprocessors to pretend to.
extern "C" void emulator_configure(int residents, int seed, int processors) {
  emulator::residents = residents;
  emulator::seed = seed;
  emulator::processors = processors;
}

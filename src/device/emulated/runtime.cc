// The emulated device: runs the blocks of a launch in turn, the threads of a block as fibers.
//
// A thread runs until it must wait; then the fiber that it runs on changes directly to the next thread that can go on. A thread
// that has not started yet takes over the stack of one that has returned, so a kernel without barriers needs a single stack and
// no change at all. The order of blocks, of threads and of those that a barrier lets go is drawn from the seed.
//
// What would hang or be undefined on a GPU ends the launch with a sentence: a barrier that not every thread reaches, lanes of a
// warp that meet in different functions. Memory that a kernel must not rely on (shared memory at the start of a block) is all ones, which is NaN.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "fiber.h"
#include "registry.h"

namespace couplet {

__thread Thread* running;
__thread Index thread_index, block_index, block_size, grid_size;

constexpr int LANES = 32;
constexpr unsigned MAX_THREADS = 1024;

enum class State { Unstarted, Ready, AtBarrier, AtWarp, Returned };

struct Copy {
    void* dst;
    const void* src;
    unsigned bytes, zeros;
    unsigned group;
};

struct Thread {
    Index index;
    unsigned number;
    State state;
    Fiber* fiber;
    unsigned group;  // of copies, the one being gathered
    std::vector<Copy> copies;
};

struct Warp {
    int size, returned, arrived;
    unsigned generation;
    const char* name;
    unsigned present[2];
    Slot slots[2][LANES];
};

class Emulator;
static __thread Emulator* emulator;

class Emulator {
public:
    explicit Emulator(uint64_t seed) : random_(seed * 0x9e3779b97f4a7c15ull + 0x2545f4914f6cdd1dull) {}

    // Empty if all went well.
    std::string launch(const Kernel& kernel, const uint32_t* grid, const uint32_t* block, uint32_t shared, const uint64_t* words);

    void barrier();
    Shown exchange(const char* name, const void* words, size_t bytes);
    void* dynamic() { return dynamic_; }

private:
    static void fiber_main();
    void run_block();
    void poison();
    void thread_returned(Thread& thread);
    void change_to(Fiber& to, bool last);
    void wait();
    void complete(Warp& warp, unsigned number);
    [[noreturn]] void stuck();
    [[noreturn]] void fail(const std::string& message);
    std::string place(const Thread& thread) const;

    bool can_start() const { return started_ < threads_; }
    bool can_resume() const { return ready_begin_ != ready_end_; }
    Thread* pop() { return ready_[ready_begin_++ % MAX_THREADS]; }
    void enqueue(Thread* thread) {
        ready_[ready_end_++ % MAX_THREADS] = thread;
        thread->state = State::Ready;
    }

    uint32_t draw() {
        random_ ^= random_ << 13;
        random_ ^= random_ >> 7;
        random_ ^= random_ << 17;
        return static_cast<uint32_t>(random_ >> 32);
    }
    bool coin() { return draw() & 1u; }
    unsigned below(unsigned n) { return static_cast<unsigned>((static_cast<uint64_t>(draw()) * n) >> 32); }
    template <class T>
    void shuffle(T* values, size_t n) {
        for (size_t i = n; i > 1; i--) std::swap(values[i - 1], values[below(static_cast<unsigned>(i))]);
    }

    uint64_t random_;
    Stacks stacks_;
    Fiber main_;                 // the operating-system thread itself
    Fiber* current_ = nullptr;
    Fiber* left_ = nullptr;      // the one before
    const Kernel* kernel_ = nullptr;
    const uint64_t* words_ = nullptr;
    std::string error_;
    unsigned char* dynamic_ = nullptr;
    size_t dynamic_bytes_ = 0;

    unsigned threads_ = 0, returned_ = 0, at_barrier_ = 0, started_ = 0;
    std::vector<Thread> thread_;
    std::vector<Warp> warp_;
    std::vector<unsigned> order_;   // of the threads
    std::vector<unsigned> blocks_;  // in their order
    Thread* ready_[MAX_THREADS];    // a ring
    unsigned ready_begin_ = 0, ready_end_ = 0;
};

std::string Emulator::place(const Thread& t) const {
    char text[128];
    std::snprintf(text, sizeof text, "block (%u,%u,%u), thread (%u,%u,%u)", block_index.x, block_index.y, block_index.z, t.index.x,
                  t.index.y, t.index.z);
    return text;
}

std::string Emulator::launch(const Kernel& kernel, const uint32_t* grid, const uint32_t* block, uint32_t shared, const uint64_t* words) {
    const std::lock_guard<std::mutex> lock(kernel.unit->in_use);
    kernel_ = &kernel;
    words_ = words;
    error_.clear();
    grid_size = {grid[0], grid[1], grid[2]};
    block_size = {block[0], block[1], block[2]};
    threads_ = block[0] * block[1] * block[2];
    if (thread_.size() < threads_) {
        thread_.resize(threads_);
        warp_.resize((threads_ + LANES - 1) / LANES);
    }
    for (unsigned i = 0; i < threads_; i++) {
        thread_[i].number = i;
        thread_[i].index = {i % block[0], i / block[0] % block[1], i / block[0] / block[1]};
    }
    order_.resize(threads_);
    for (unsigned i = 0; i < threads_; i++) order_[i] = i;
    blocks_.resize(static_cast<size_t>(grid[0]) * grid[1] * grid[2]);
    for (size_t i = 0; i < blocks_.size(); i++) blocks_[i] = static_cast<unsigned>(i);
    shuffle(blocks_.data(), blocks_.size());
    // Of exactly this size, so that AddressSanitizer sees an overrun.
    dynamic_bytes_ = shared;
    void* memory = nullptr;
    if (posix_memalign(&memory, 128, shared) != 0) return "no memory is left for its shared memory";
    dynamic_ = static_cast<unsigned char*>(memory);

    emulator = this;
    main_ = Fiber{};  // this launch may come from another operating-system thread than the last
    current_ = &main_;
    for (const unsigned b : blocks_) {
        block_index = {b % grid[0], b / grid[0] % grid[1], b / grid[0] / grid[1]};
        run_block();
        if (!error_.empty()) break;
    }
    emulator = nullptr;
    running = nullptr;
    std::free(dynamic_);
    stacks_.give_all();
    return error_;
}

void Emulator::run_block() {
    poison();
    for (unsigned i = 0; i < threads_; i++) {
        Thread& t = thread_[i];
        t.state = State::Unstarted;
        t.fiber = nullptr;
        t.group = 0;
        t.copies.clear();
    }
    for (unsigned w = 0; w * LANES < threads_; w++) {
        Warp& warp = warp_[w];
        warp.size = static_cast<int>(threads_ - w * LANES < LANES ? threads_ - w * LANES : LANES);
        warp.returned = warp.arrived = 0;
        warp.generation = 0;
        warp.present[0] = warp.present[1] = 0;
    }
    shuffle(order_.data(), threads_);
    returned_ = at_barrier_ = started_ = ready_begin_ = ready_end_ = 0;
    Fiber* first = stacks_.take();
    fiber_prepare(*first, fiber_main);
    change_to(*first, false);
}

#ifdef COUPLET_ASAN
// Not instrumented, and no memset: it walks over the gaps that AddressSanitizer leaves between the arrays.
__attribute__((no_sanitize("address"), noinline)) static void ones(unsigned char* begin, unsigned char* end) {
    for (volatile unsigned char* p = begin; p != end; p++) *p = 0xff;
}
#else
static void ones(unsigned char* begin, unsigned char* end) {
    if (begin != end) std::memset(begin, 0xff, static_cast<size_t>(end - begin));
}
#endif

// Shared memory is undefined when a block starts.
void Emulator::poison() {
    ones(kernel_->unit->shared_begin, kernel_->unit->shared_end);
    ones(dynamic_, dynamic_ + dynamic_bytes_);
}

// What a fiber does: starts threads as long as some are left to start, then makes room for those that wait.
void Emulator::fiber_main() {
    Emulator& e = *emulator;
    fiber_arrived(*e.current_, *e.left_);
    for (;;) {
        Thread& t = e.thread_[e.order_[e.started_++]];
        t.fiber = e.current_;
        running = &t;
        thread_index = t.index;
        e.kernel_->call(e.words_);
        e.thread_returned(t);
        if (e.returned_ == e.threads_) {
            e.stacks_.give(e.current_);
            e.change_to(e.main_, true);
        }
        if (e.can_resume() && !(e.can_start() && e.coin())) {
            e.stacks_.give(e.current_);
            e.change_to(*e.pop()->fiber, true);
        }
        if (!e.can_start()) e.stuck();
    }
}

void Emulator::thread_returned(Thread& t) {
    t.state = State::Returned;
    returned_++;
    Warp& warp = warp_[t.number / LANES];
    warp.returned++;
    if (warp.arrived > 0 && warp.arrived == warp.size - warp.returned) complete(warp, t.number / LANES);
}

void Emulator::change_to(Fiber& to, bool last) {
    left_ = current_;
    current_ = &to;
    fiber_change(*left_, to, last);
}

// Gives way until the calling thread can go on.
void Emulator::wait() {
    Thread* const me = running;
    if (can_resume() && !(can_start() && coin())) {
        Thread* const other = pop();
        if (other != me) change_to(*other->fiber, false);
    } else if (can_start()) {
        Fiber* fresh = stacks_.take();
        fiber_prepare(*fresh, fiber_main);
        change_to(*fresh, false);
    } else {
        stuck();
    }
    running = me;
    thread_index = me->index;
}

void Emulator::barrier() {
    running->state = State::AtBarrier;
    if (++at_barrier_ == threads_) {
        at_barrier_ = 0;
        shuffle(order_.data(), threads_);  // every thread has started, so the order of starting is free for this
        for (unsigned i = 0; i < threads_; i++) enqueue(&thread_[order_[i]]);
    }
    wait();
}

Shown Emulator::exchange(const char* name, const void* words, size_t bytes) {
    Thread* const me = running;
    const int lane = static_cast<int>(me->number % LANES);
    Warp& warp = warp_[me->number / LANES];
    const unsigned side = warp.generation & 1u;  // a lane is never two exchanges ahead: two sides are enough
    if (warp.arrived == 0) {
        warp.name = name;
        warp.present[side] = 0;
    } else if (std::strcmp(warp.name, name) != 0) {
        fail(place(*me) + " is in " + name + " while other lanes of its warp are in " + warp.name);
    }
    if (bytes > 0) std::memcpy(warp.slots[side][lane].words, words, bytes);
    warp.present[side] |= 1u << lane;
    me->state = State::AtWarp;
    if (++warp.arrived == warp.size - warp.returned) {
        complete(warp, me->number / LANES);
    }
    wait();
    return {warp.slots[side], warp.present[side], lane};
}

// Lets the waiting lanes go, from a random one on.
void Emulator::complete(Warp& warp, unsigned number) {
    warp.arrived = 0;
    warp.generation++;
    const unsigned first = below(LANES);
    for (unsigned l = 0; l < LANES; l++) {
        const unsigned lane = (first + l) % LANES;
        if (lane < static_cast<unsigned>(warp.size) && thread_[number * LANES + lane].state == State::AtWarp) {
            enqueue(&thread_[number * LANES + lane]);
        }
    }
}

// Nobody can go on: on a GPU this block would hang.
void Emulator::stuck() {
    const Thread* barrier = nullptr;
    const Thread* warp = nullptr;
    const Thread* returned = nullptr;
    unsigned warps = 0;
    for (unsigned i = 0; i < threads_; i++) {
        const Thread& t = thread_[i];
        if (t.state == State::AtBarrier && !barrier) barrier = &t;
        if (t.state == State::AtWarp && warps++ == 0) warp = &t;
        if (t.state == State::Returned && !returned) returned = &t;
    }
    std::string message = "not every thread reaches the same barrier:";
    const auto say = [&](unsigned n, const Thread* t, const std::string& where) {
        if (n > 0) message += " " + std::to_string(n) + " of " + std::to_string(threads_) + " " + where + " (" + place(*t) + ");";
    };
    say(at_barrier_, barrier, "wait in __syncthreads");
    say(warps, warp, warp ? std::string("wait in ") + warp_[warp->number / LANES].name : "");
    say(returned_, returned, "have returned");
    message.pop_back();
    fail(message);
}

// Leaves the block as it is; its stacks are taken back by `launch`.
void Emulator::fail(const std::string& message) {
    error_ = message;
    change_to(main_, true);
    std::abort();  // a fiber that was left for good does not come back
}

void block_barrier() { emulator->barrier(); }

Shown warp_exchange(const char* name, const void* words, size_t bytes) { return emulator->exchange(name, words, bytes); }

void* dynamic_shared() { return emulator->dynamic(); }

void copy_later(void* dst, const void* src, unsigned bytes, unsigned zeros) {
    running->copies.push_back({dst, src, bytes, zeros, running->group});
}

void copy_commit() { running->group++; }

void copy_wait(int groups_left) {
    std::vector<Copy>& copies = running->copies;
    size_t done = 0;
    for (; done < copies.size() && copies[done].group + static_cast<unsigned>(groups_left) < running->group; done++) {
        const Copy& c = copies[done];
        if (c.bytes > 0) std::memcpy(c.dst, c.src, c.bytes);
        std::memset(static_cast<char*>(c.dst) + c.bytes, 0, c.zeros);
    }
    copies.erase(copies.begin(), copies.begin() + static_cast<std::ptrdiff_t>(done));
}

}  // namespace couplet

// The units that the build found, one a kernel source.
#define COUPLET_UNIT_NAMED(UNIT) extern couplet::Unit couplet_unit_##UNIT;
#include "units.inc"
#undef COUPLET_UNIT_NAMED
#define COUPLET_UNIT_NAMED(UNIT) &couplet_unit_##UNIT,
static couplet::Unit* const UNITS[] = {
#include "units.inc"
    nullptr};

// What src/device/emulated.rs calls.
extern "C" {

void* couplet_emulator_new(uint64_t seed) { return new couplet::Emulator(seed); }

void couplet_emulator_free(void* emulator) { delete static_cast<couplet::Emulator*>(emulator); }

const void* couplet_emulator_find(const char* name) {
    for (couplet::Unit* const* unit = UNITS; *unit; unit++) {
        for (size_t i = 0; i < (*unit)->count; i++) {
            if (std::strcmp((*unit)->kernels[i].name, name) == 0) return &(*unit)->kernels[i];
        }
    }
    return nullptr;
}

const char* couplet_emulator_signature(const void* kernel) { return static_cast<const couplet::Kernel*>(kernel)->signature; }

// Returns the length of the error, 0 if there is none; at most `room` bytes with the closing zero are written.
size_t couplet_emulator_launch(void* emulator, const void* kernel, const uint32_t* grid, const uint32_t* block, uint32_t shared,
                               const uint64_t* words, char* message, size_t room) {
    const std::string error =
        static_cast<couplet::Emulator*>(emulator)->launch(*static_cast<const couplet::Kernel*>(kernel), grid, block, shared, words);
    std::snprintf(message, room, "%s", error.c_str());
    return error.size();
}
}

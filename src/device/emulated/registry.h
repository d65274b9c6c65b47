// From a kernel's C++ function to something that can be launched by name: its parameters' kinds, and a call that unpacks words.
#pragma once

#include <mutex>
#include <type_traits>
#include <utility>

#include "runtime.h"

namespace couplet {

struct Unit;

struct Kernel {
    const char* name;
    const char* signature;  // one letter a parameter: p pointer, i int, u unsigned, f float
    void (*call)(const uint64_t* words);
    Unit* unit;
};

// One kernel source: its kernels, and where its static shared arrays lie.
struct Unit {
    const Kernel* kernels;
    size_t count;
    unsigned char *shared_begin, *shared_end;
    std::mutex in_use;
};

template <class T>
constexpr char kind() {
    static_assert(std::is_pointer_v<T> || std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, float>,
                  "a kernel takes pointers, int, unsigned and float");
    return std::is_pointer_v<T> ? 'p' : std::is_same_v<T, int> ? 'i' : std::is_same_v<T, unsigned> ? 'u' : 'f';
}

template <class T>
T unpack(uint64_t word) {
    T value;
    std::memcpy(&value, &word, sizeof(T));  // the low end: both hosts that the emulator knows are little-endian
    return value;
}

template <auto F>
struct Entry;
template <class... A, void (*F)(A...)>
struct Entry<F> {
    static constexpr char signature[] = {kind<A>()..., '\0'};
    template <size_t... I>
    static void unpacked(const uint64_t* words, std::index_sequence<I...>) {
        F(unpack<A>(words[I])...);
    }
    static void call(const uint64_t* words) { unpacked(words, std::index_sequence_for<A...>{}); }
};

}  // namespace couplet

#define COUPLET_KERNEL(UNIT, NAME) \
    couplet::Kernel { #NAME, couplet::Entry<&NAME>::signature, &couplet::Entry<&NAME>::call, &couplet_unit_##UNIT }

// The bounds that the linker gives a section whose name is an identifier; none if the unit has no static shared array.
#ifdef __ELF__
#define COUPLET_UNIT(UNIT, ...)                                                                              \
    extern "C" __attribute__((weak, visibility("hidden"))) unsigned char __start_couplet_shared_##UNIT[];    \
    extern "C" __attribute__((weak, visibility("hidden"))) unsigned char __stop_couplet_shared_##UNIT[];     \
    extern couplet::Unit couplet_unit_##UNIT;                                                                \
    static const couplet::Kernel kernels_of_unit[] = {__VA_ARGS__};                                          \
    couplet::Unit couplet_unit_##UNIT = {kernels_of_unit, sizeof kernels_of_unit / sizeof(couplet::Kernel),  \
                                         __start_couplet_shared_##UNIT, __stop_couplet_shared_##UNIT, {}};
#else
#define COUPLET_UNIT(UNIT, ...)                                  \
    extern couplet::Unit couplet_unit_##UNIT;                    \
    static const couplet::Kernel kernels_of_unit[] = {__VA_ARGS__}; \
    couplet::Unit couplet_unit_##UNIT = {kernels_of_unit, sizeof kernels_of_unit / sizeof(couplet::Kernel), nullptr, nullptr, {}};
#endif

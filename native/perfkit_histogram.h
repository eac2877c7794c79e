/* Counts latencies, and other numbers, where perfkit reads them from outside: for servers in C and
 * C++. Nothing but this header and its neighbours is needed, and no Python; Linux 4.14 or later.
 *
 *     static perfkit_histogram *latency;
 *     perfkit_histogram_options options;
 *     memset(&options, 0, sizeof(options));
 *     options.name = "request_duration";
 *     options.unit = "s";
 *     int error = perfkit_histogram_open(&options, &latency);
 *     ...
 *     perfkit_histogram_record(latency, seconds);
 *
 * Functions that can fail give 0 or an errno value, and set *ret where they give 0. Each thread
 * writes a shard of its own, claimed at its first record, which reads /proc; who ends leaves it,
 * with its counts, to others. After a fork the child claims its own at its first record, in the
 * same file. Where no shard is left, threads share one, which is slower. All other records make no
 * system call, and take no lock and no memory. A signal handler may have interrupted a record of
 * its own thread: it has to use perfkit_histogram_record_common. */
#ifndef PERFKIT_HISTOGRAM_H
#define PERFKIT_HISTOGRAM_H
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "perfkit_histogram_layout.h"
#include "perfkit_histogram_owner.h"
#include "perfkit_histogram_record.h"

enum {
    PERFKIT_SHARDS_DEFAULT = 16,
    PERFKIT_OCTAVES_DEFAULT = 43,
    PERFKIT_PROCESS_BYTES = 4096,
    PERFKIT_CLOCK_BOOTTIME = 7,
    PERFKIT_MAP_ANONYMOUS = 0x20, /* these, which strict C does not have, as Linux numbers them */
    PERFKIT_MADV_WIPEONFORK = 18,
    PERFKIT_MFD_CLOEXEC = 1,
    PERFKIT_MFD_ALLOW_SEALING = 2,
    PERFKIT_MFD_NOEXEC_SEAL = 8, /* Linux 6.3 */
    PERFKIT_ADD_SEALS = 1033,
};

typedef struct {
    const char *name;          /* a letter or _, then letters, digits, _ . : -; at most 63 bytes */
    const char *unit;          /* of the values, at most 63 bytes; NULL: "ns" */
    const char *const *labels; /* "key=value", at most 16, the last followed by NULL; NULL: none */
    double min_value;          /* values from min to max have buckets, within 128 octaves; where */
    double max_value;          /* both are 0: 1 ns to 73 minutes, or of what is no time 1 to 2^42 */
    uint32_t shard_count;      /* threads that write a shard of their own, at most 1024; 0: 16 */
} perfkit_histogram_options;

typedef struct perfkit_histogram {
    unsigned char *base;
    size_t size_bytes;
    perfkit_file_header header; /* a copy that nobody else can write */
    int descriptor;
    struct stat identity;     /* of the descriptor's file */
    perfkit_process *process; /* a child makes one of its own */
    uint32_t key_plus_one;    /* where threads keep their shards; 0: not made yet */
    perfkit_shard common;
} perfkit_histogram;

static inline perfkit_shard_head *perfkit_histogram_head(const perfkit_histogram *histogram,
                                                         uint32_t index)
{
    size_t offset = sizeof(perfkit_file_header) + (size_t)histogram->header.shard_bytes * index;
    return (perfkit_shard_head *)(void *)(histogram->base + offset);
}

static inline perfkit_slots perfkit_histogram_slots(const perfkit_histogram *histogram)
{
    perfkit_slots slots;
    slots.first = (uint32_t)(histogram->header.low_exponent + PERFKIT_EXPONENT_BIAS)
                  << PERFKIT_SCALE;
    slots.count = histogram->header.slot_count;
    return slots;
}

/* A number that is greater the later it is asked for. */
static inline uint64_t perfkit_now_ns(void)
{
    struct timespec now = {0, 0};
    (void)syscall(SYS_clock_gettime, PERFKIT_CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec + 2;
}

/* A page that children find empty; NULL with errno where there is no room, or Linux is too old. */
static inline perfkit_process *perfkit_process_new(uint32_t slot_count)
{
    void *page = mmap(NULL, PERFKIT_PROCESS_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | PERFKIT_MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        return NULL;
    }
    if (syscall(SYS_madvise, page, PERFKIT_PROCESS_BYTES, PERFKIT_MADV_WIPEONFORK) != 0) {
        const int error = errno;
        (void)munmap(page, PERFKIT_PROCESS_BYTES);
        errno = error;
        return NULL;
    }
    perfkit_process *process = (perfkit_process *)page;
    process->slot_count = slot_count;
    return process;
}

/* The one of this process; after a fork it is made, and the parent's is left as it is for the
 * shards that were claimed with it. An empty one where there is no room. */
static inline const perfkit_process *perfkit_histogram_process(perfkit_histogram *histogram)
{
    perfkit_process *known = __atomic_load_n(&histogram->process, __ATOMIC_ACQUIRE);
    if (known->slot_count != 0) {
        return known;
    }
    perfkit_process *made = perfkit_process_new(histogram->header.slot_count);
    if (made != NULL && !__atomic_compare_exchange_n(&histogram->process, &known, made, false,
                                                     __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        (void)munmap(made, PERFKIT_PROCESS_BYTES); /* another thread was first */
        return known;
    }
    return made == NULL ? known : made;
}

static inline bool perfkit_head_take(perfkit_shard_head *head, uint64_t from, uint64_t to)
{
    return __atomic_compare_exchange_n(&head->owner, &from, to, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_RELAXED);
}

/* The index of a shard that is the owner's now; 0, the common one's, where none can be had. */
static inline uint32_t perfkit_histogram_take(const perfkit_histogram *histogram, uint64_t owner)
{
    const uint32_t count = owner == PERFKIT_FREE ? 0 : histogram->header.shard_count;
    for (uint32_t index = 1; index <= count; index++) {
        perfkit_shard_head *head = perfkit_histogram_head(histogram, index);
        uint64_t held = __atomic_load_n(&head->owner, __ATOMIC_RELAXED);
        if (held <= PERFKIT_GIVEN_BACK && perfkit_head_take(head, held, owner)) {
            return index;
        }
    }
    for (uint32_t index = 1; index <= count; index++) {
        perfkit_shard_head *head = perfkit_histogram_head(histogram, index);
        uint64_t held = __atomic_load_n(&head->owner, __ATOMIC_RELAXED);
        bool is_left = held <= PERFKIT_GIVEN_BACK || perfkit_is_dead(held);
        if (is_left && perfkit_head_take(head, held, owner)) {
            return index;
        }
    }
    return 0;
}

/* Makes `ret` the shard of the calling thread, or of the process where whoever writes it sees to it
 * that no two threads do at once, with a lock of its own. It has to outlive its use. */
static inline void perfkit_histogram_claim(perfkit_histogram *histogram, bool is_process,
                                           perfkit_shard *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->histogram = histogram;
    ret->is_process = is_process;
    ret->process = perfkit_histogram_process(histogram);
    if (perfkit_is_own(ret)) {
        ret->owner = perfkit_find_owner(histogram->header.pid_namespace, is_process);
    }
    const uint32_t index = perfkit_histogram_take(histogram, ret->owner);
    ret->head = perfkit_histogram_head(histogram, index);
    ret->low_bits = UINT64_MAX;
    ret->first_slot = perfkit_histogram_slots(histogram).first;
    ret->slot_count = index == 0 ? &ret->process->none : &ret->process->slot_count;
}

static inline bool perfkit_is_common(const perfkit_shard *shard)
{
    return shard->slot_count == &shard->process->none;
}

/* Gives a shard back, with its counts. Later records with it go nowhere. */
static inline void perfkit_shard_release(perfkit_shard *shard)
{
    if (!perfkit_is_common(shard) && perfkit_is_own(shard)) {
        (void)perfkit_head_take(shard->head, shard->owner, PERFKIT_GIVEN_BACK);
    }
}

__attribute__((noinline, cold, unused)) static void
perfkit_shard_record_slowly(perfkit_shard *shard, double value)
{
    if (shard != &shard->histogram->common && !perfkit_is_own(shard)) {
        perfkit_histogram_claim(shard->histogram, shard->is_process, shard);
    }
    perfkit_count(shard->head, perfkit_histogram_slots(shard->histogram), value,
                  perfkit_is_common(shard));
}

/* Runs when a thread ends. */
__attribute__((unused)) static void perfkit_thread_shard_end(void *shard)
{
    perfkit_shard_release((perfkit_shard *)shard);
    free(shard);
}

/* Where threads keep their shards, plus one; 0 where there is no room for it. */
static inline uint32_t perfkit_histogram_make_key(perfkit_histogram *histogram)
{
    pthread_key_t key;
    uint32_t known = 0;
    if (pthread_key_create(&key, perfkit_thread_shard_end) != 0) {
        return 0;
    }
    if (!__atomic_compare_exchange_n(&histogram->key_plus_one, &known, (uint32_t)key + 1, false,
                                     __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        (void)pthread_key_delete(key); /* another thread was first */
        return known;
    }
    return (uint32_t)key + 1;
}

__attribute__((noinline, cold, unused)) static perfkit_shard *
perfkit_histogram_begin_thread(perfkit_histogram *histogram)
{
    uint32_t key_plus_one = __atomic_load_n(&histogram->key_plus_one, __ATOMIC_ACQUIRE);
    if (key_plus_one == 0) {
        key_plus_one = perfkit_histogram_make_key(histogram);
    }
    perfkit_shard *shard =
        key_plus_one == 0 ? NULL : (perfkit_shard *)malloc(sizeof(perfkit_shard));
    if (shard == NULL) {
        return &histogram->common;
    }
    perfkit_histogram_claim(histogram, false, shard);
    if (pthread_setspecific((pthread_key_t)(key_plus_one - 1), shard) != 0) {
        perfkit_shard_release(shard);
        free(shard);
        return &histogram->common;
    }
    return shard;
}

/* The calling thread's shard, never NULL; its own until it ends. A thread that keeps it spares a
 * look-up at each record. */
static inline perfkit_shard *perfkit_histogram_thread_shard(perfkit_histogram *histogram)
{
    const uint32_t key_plus_one = __atomic_load_n(&histogram->key_plus_one, __ATOMIC_ACQUIRE);
    if (__builtin_expect(key_plus_one != 0, 1)) {
        void *shard = pthread_getspecific((pthread_key_t)(key_plus_one - 1));
        if (__builtin_expect(shard != NULL, 1)) {
            return (perfkit_shard *)shard;
        }
    }
    return perfkit_histogram_begin_thread(histogram);
}

/* Counts a value, from any thread. */
static inline void perfkit_histogram_record(perfkit_histogram *histogram, double value)
{
    perfkit_shard_record(perfkit_histogram_thread_shard(histogram), value);
}

/* The same from a signal handler: async-signal-safe, and slower. */
static inline void perfkit_histogram_record_common(perfkit_histogram *histogram, double value)
{
    perfkit_count(perfkit_histogram_head(histogram, 0), perfkit_histogram_slots(histogram), value,
                  true);
}

#include "perfkit_histogram_open.h"

#endif

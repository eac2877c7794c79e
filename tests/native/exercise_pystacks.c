/* Has the reader of Python stacks look at this process, whose "interpreter" is made of damaged
 * words, under the sanitizers. Arguments: seed, rounds. Prints "ok" and counts; a fault aborts. */
#include "pk_pyprocess.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WORD_COUNT = 4096 };

static uint64_t state;
static uint64_t memory[WORD_COUNT];

static uint64_t draw(uint64_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 16) % limit;
}

static uint64_t place(uint64_t word)
{
    return (uint64_t)(uintptr_t)&memory[word];
}

/* Mostly addresses of other objects, sometimes nonsense or the end of what is mapped. */
static void damage(uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t word = draw(8) == 0 ? draw(UINT64_MAX) : place(8 * draw(WORD_COUNT / 8));
        memory[draw(WORD_COUNT)] = draw(16) == 0 ? draw(64) : word;
    }
}

/* One interpreter with two threads of a few frames, as 3.12 lays them out. */
static void build(const int64_t *offsets)
{
    damage(WORD_COUNT * 4);
    memory[5] = place(64);                                     /* runtime: interpreters */
    memory[64] = 0;                                            /* interpreter: next */
    memory[64 + offsets[2] / 8] = place(128);
    memory[64 + offsets[19] / 8] = draw(3);                    /* collects garbage, */
    memory[64 + offsets[21] / 8] = place(256);                 /* and who holds its lock */
    memory[256 + offsets[22] / 8] = place(128 + 64 * draw(2));
    for (uint64_t i = 0; i < 2; i++) {
        uint64_t at = 128 + 64 * i;
        memory[at + 1] = i == 0 ? place(at + 64) : 0;          /* thread: next, interpreter, */
        memory[at + 2] = place(64);
        memory[at + 7] = place(512 + 64 * i);                  /* where its frame is told */
        memory[at + offsets[7] / 8] = (uint64_t)getpid();
        for (uint64_t depth = 0; depth < 8; depth++) {
            uint64_t frame = 1024 + 256 * i + 32 * depth;
            memory[frame] = place(2048 + 32 * depth);
            memory[frame + 1] = depth < 7 ? place(frame + 32) : 0;
            memory[frame + 8] = 0;
            uint64_t code = 2048 + 32 * depth;
            memory[code + 14] = memory[code + 16] = place(3072 + 16 * depth);
            memory[3072 + 16 * depth + 2] = draw(40);          /* text: length, state */
            memory[3072 + 16 * depth + 4] = 1 << 2 | 1 << 5 | 1 << 6;
        }
        memory[512 + 64 * i] = place(1024 + 256 * i);
    }
}

static void spend(void)
{
    volatile uint64_t sum = 0;
    for (int i = 0; i < 2000; i++) {
        sum += (uint64_t)i;
    }
}

int main(int argc, char **argv)
{
    static const int64_t offsets[PK_PY_OFFSET_COUNT] = {
        40, 0, 72, 8, 16, 56, 0, 144, 0, 8, 70, 112, 128, 68, 16, 32, 40, 56, -1, 312, -1, 384, 8,
    };
    state = argc > 1 ? strtoull(argv[1], NULL, 10) | 1 : 1;
    long rounds = argc > 2 ? strtol(argv[2], NULL, 10) : 1000;
    pk_pylayout layout;
    pk_pyshared shared;
    if (pk_pylayout_init(&layout, offsets) != 0 || pk_pyshared_init(&shared, 1024) != 0) {
        return 2;
    }
    shared.proc_folder = open("/proc", O_RDONLY | O_DIRECTORY);
    int64_t looked_count = 0;
    for (long round = 0; round < rounds; round++) {
        pk_pyprocess process;
        if (pk_pyprocess_init(&process, getpid(), place(0), &layout) != 0) {
            return 2;
        }
        build(offsets);
        for (int look = 0; look < 6; look++) {
            for (size_t i = 0; i < process.thread_count; i++) {
                process.threads[i]->blocked_ns = 0; /* each look walks its stack */
            }
            looked_count += pk_pyprocess_look(&process, &shared);
            damage(draw(64));
            spend();
        }
        pk_pyprocess_deinit(&process, &shared);
    }
    printf("ok %lld looks, %u names, %u stacks, %lld torn\n", (long long)looked_count,
           atomic_load(&shared.names.count), atomic_load(&shared.stacks.count),
           (long long)shared.counts.torn_count);
    int is_fair = atomic_load(&shared.stacks.count) > 0 && shared.counts.torn_count > 0;
    pk_pyshared_deinit(&shared);
    return is_fair ? 0 : 3;
}

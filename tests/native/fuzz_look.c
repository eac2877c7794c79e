/* Looks again and again at a process whose threads sleep with stack pointers that lead anywhere,
 * into memory that changes under the looks, and whose "interpreter" is made of the same memory.
 * Arguments: a seed, rounds. Prints "ok" and counts. */
#include "pk_dump.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { AREA_BYTES = 1 << 20, WORD_COUNT = AREA_BYTES / 8, PLACE_COUNT = 8 };

static uint64_t *area;
static uint64_t state = 1;

static uint64_t draw(uint64_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % limit;
}

static uint64_t place_of(size_t number)
{
    uint64_t start = (uintptr_t)area;
    const uint64_t places[PLACE_COUNT] = {
        start,      start + AREA_BYTES - 8, start + AREA_BYTES - 16384, start + 4099,
        0,          16,                     (1ULL << 47) - 4096,        start + AREA_BYTES / 2,
    };
    return places[number];
}

/* Sleeps for ever with this stack pointer. */
static void *sink(void *number)
{
    static int word;
    uint64_t place = place_of((size_t)(uintptr_t)number);
    register long timeout __asm__("r10") = 0;
    long call = SYS_futex;
    __asm__ volatile("mov %%rsp, %%rbx\n\tmov %[place], %%rsp\n\tsyscall\n\tmov %%rbx, %%rsp"
                     : "+a"(call)
                     : "D"(&word), "S"(FUTEX_WAIT), "d"(0), "r"(timeout), [place] "r"(place)
                     : "rbx", "rcx", "r11", "memory");
    return NULL;
}

static void be_child(void)
{
    pthread_t thread;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (size_t i = 0; i < PLACE_COUNT; i++) {
        pthread_create(&thread, NULL, sink, (void *)(uintptr_t)i);
    }
    pause();
    _exit(0);
}

static uint64_t draw_word(void)
{
    uint64_t inside = (uintptr_t)area + 8 * draw(WORD_COUNT);
    switch (draw(6)) {
    case 0:
        return inside;
    case 1:
        return (uintptr_t)&pthread_create + draw(4096);
    case 2:
        return (uintptr_t)&place_of + draw(2048);
    case 3:
        return draw(64);
    case 4:
        return state;
    default:
        return inside & ~15ULL;
    }
}

static void scribble(uint64_t round)
{
    for (size_t i = 0; i < WORD_COUNT; i++) {
        area[i] = round % 7 == 0 ? (uintptr_t)&area[i] : draw_word();
    }
}

int main(int count, char **words)
{
    static const int64_t offsets[PK_PY_OFFSET_COUNT] = {
        40, 0, 72, 8, 16, 56, 0, 144, 0, 8, 70, 112, 128, 68, 16, 32, 40, 56, -1, 312, -1, 384, 8,
    };
    pk_pylayout layout;
    state = count > 1 ? strtoull(words[1], NULL, 10) | 1 : 1;
    uint64_t rounds = count > 2 ? strtoull(words[2], NULL, 10) : 100;
    area = mmap(NULL, AREA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (pk_pylayout_init(&layout, offsets) != 0 || area == MAP_FAILED) {
        return 2;
    }
    scribble(1);
    pid_t child = fork();
    if (child == 0) {
        be_child();
    }
    usleep(100000);
    long thread_count = 0;
    long frame_count = 0;
    int error = 0;
    for (uint64_t round = 0; error == 0 && round < rounds; round++) {
        scribble(round);
        pk_dump dump;
        error = pk_dump_take(&dump, "/proc", child, (uintptr_t)area + 8 * draw(64),
                             round % 2 == 0 ? &layout : NULL, 64);
        if (error == 0) {
            thread_count += (long)dump.row_count;
            frame_count += dump.stacks.frame_used;
            pk_dump_deinit(&dump);
        }
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    printf("%s %ld threads, %ld frames, error %d\n", error == 0 ? "ok" : "failed", thread_count,
           frame_count, error);
    return error != 0;
}

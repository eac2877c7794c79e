/* Code whose stacks are not easily unwound; each scene by its name. Prints what it worked out. */
#include <immintrin.h>
#include <alloca.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define APART __attribute__((noinline, noclone))

static volatile long sum;
static jmp_buf back;

static APART long leaf(long value)
{
    sum += value;
    return sum;
}

/* Deeper than any copy of a stack. */
static APART long recurse(long depth)
{
    volatile long room[24] = {depth};
    return depth == 0 ? leaf(1) : recurse(depth - 1) + room[depth % 24];
}

static APART int compare(const void *first, const void *second)
{
    leaf(1);
    return *(const int *)first - *(const int *)second;
}

static void callbacks(void)
{
    int numbers[40];
    for (int i = 0; i < 40; i++) {
        numbers[i] = i * 7919 % 41;
    }
    qsort(numbers, 40, sizeof *numbers, compare);
}

/* The stack pointer moves by what is only known when it runs: CFA is rbp + n. */
static APART long variable(size_t size)
{
    char *room = alloca(size);
    memset(room, 1, size);
    return leaf(room[size / 2]) + leaf((long)size);
}

/* The stack is re-aligned for vectors: in the prologue CFA is r10, then what lies at rbp - 8. */
__attribute__((target("avx2"))) static APART long aligned(long value, size_t size)
{
    __m256i vectors[4] __attribute__((aligned(64)));
    char *room = alloca(size);
    memset(room, 3, size);
    for (int i = 0; i < 4; i++) {
        vectors[i] = _mm256_set1_epi64x(value + i + room[0]);
        leaf(value);
        vectors[i] = _mm256_add_epi64(vectors[i], vectors[i / 2]);
    }
    long stored[16];
    memcpy(stored, vectors, sizeof stored);
    return leaf(stored[5]);
}

__attribute__((noreturn)) static APART void never(long value)
{
    leaf(value);
    longjmp(back, 1); /* the call to this function is the last instruction of its caller */
}

static APART long ends_in_call(long value)
{
    if (leaf(value) != -1) {
        never(value);
    }
    __builtin_unreachable();
}

static APART void on_signal(int number)
{
    leaf(number);
    variable(100);
}

static APART void signalled(int is_apart)
{
    static char apart[1 << 16];
    stack_t other = {.ss_sp = apart, .ss_size = sizeof apart};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = is_apart ? SA_ONSTACK : 0};
    sigaltstack(&other, NULL);
    sigaction(SIGUSR1, &action, NULL);
    for (int i = 0; i < 5; i++) {
        leaf(i);
        raise(SIGUSR1);
    }
}

/* A function without tables that does not touch the stack, as written by hand. */
__asm__(".text\n.type bare, @function\nbare:\n"
        " mov $20, %ecx\n1: add %rdi, %rax\n dec %ecx\n jnz 1b\n ret\n.size bare, .-bare\n");
long bare(long value);

/* Code made at run time, which keeps frame pointers: outer calls inner, inner calls a function. */
static void generated(void)
{
    static const unsigned char inner[] = {
        0x55, 0x48, 0x89, 0xE5,                   /* push %rbp; mov %rsp, %rbp */
        0x53, 0x48, 0x83, 0xEC, 0x28,             /* push %rbx; sub $40, %rsp */
        0x48, 0x89, 0xFB, 0x48, 0x89, 0x5D, 0xE8, /* mov %rdi, %rbx; mov %rbx, -24(%rbp) */
        0x48, 0xC7, 0xC7, 5, 0, 0, 0,             /* mov $5, %rdi */
        0xFF, 0xD3, 0x90,                         /* call *%rbx; nop */
        0x48, 0x83, 0xC4, 0x28, 0x5B, 0x5D, 0xC3, /* add $40, %rsp; pop %rbx; pop %rbp; ret */
    };
    static const unsigned char outer[] = {
        0x55, 0x48, 0x89, 0xE5, /* push %rbp; mov %rsp, %rbp */
        0xFF, 0xD6,             /* call *%rsi */
        0x5D, 0xC3,             /* pop %rbp; ret */
    };
    static const unsigned char plain[] = {
        0x48, 0x83, 0xEC, 0x08, /* sub $8, %rsp */
        0xFF, 0xD6,             /* call *%rsi */
        0x48, 0x83, 0xC4, 0x08, 0xC3, /* add $8, %rsp; ret */
    };
    unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(code, inner, sizeof inner);
    memcpy(code + 64, outer, sizeof outer);
    memcpy(code + 128, plain, sizeof plain);
    typedef long (*entry)(void *, void *);
    for (int i = 0; i < 20; i++) {
        entry begin;
        void *place = code + (i % 2 == 0 ? 64 : 128);
        memcpy(&begin, &place, sizeof begin);
        begin((void *)(uintptr_t)leaf, code);
    }
}

static APART void lazily_bound(void)
{
    sum += (long)strtod("3.5", NULL);
    char text[64];
    snprintf(text, sizeof text, "%ld %s %f", sum, "text", 1.5);
    sum += (long)strlen(text) + atoi(text) + rand();
    free(malloc((size_t)(sum & 1023)));
}

static void *in_thread(void *argument)
{
    recurse(20);
    callbacks();
    variable(300);
    return argument;
}

/* What compilers and the C library describe in their tables. */
static APART void ruled(void)
{
    lazily_bound();
    recurse(20);
    callbacks();
    variable(100);
    aligned(5, 200);
    if (setjmp(back) == 0) {
        ends_in_call(3);
    }
    signalled(0);
    signalled(1);
}

int main(int count, char **words)
{
    const char *scene = count > 1 ? words[1] : "all";
    if (strcmp(scene, "deep") == 0) {
        lazily_bound();
        recurse(3000);
    } else if (strcmp(scene, "thread") == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, in_thread, NULL);
        pthread_join(thread, NULL);
    } else {
        raise(SIGSTOP);
        for (int i = 0; i < 1000; i++) {
            ruled();
            if (strcmp(scene, "ruled") != 0) {
                bare(2);
                generated();
            }
        }
    }
    printf("%ld\n", sum);
    return 0;
}

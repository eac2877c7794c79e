/* A target whose threads go through known states and keep the truth: thread ledger's oracle.
 *
 * usage: scripted SECONDS THREADS PEER_PORT FILE CPU_MS LOCK_MS RECV_MS FSYNC_MS TIMER_MS
 * Each thread repeats: compute, wait for one lock, ask the peer and wait for its answer, fsync,
 * sleep. It measures every phase itself: CPU by its own CPU clock, waits by the wall clock less the
 * CPU and the waiting for a CPU (schedstat) that fell into them. At the end it prints one line per
 * thread: tid cpu lock recv fsync timer wall, in seconds.
 * A holder thread takes the lock for LOCK_MS and lets go of it, over and over. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { CPU, LOCK, RECV, FSYNC, TIMER, PHASES };

static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool stopping;
static int peer_port;
static const char *file_path;
static double wanted_ms[PHASES];

typedef struct {
    double seconds[PHASES];
    double wall;
    long tid;
} Truth;

static double now(clockid_t clock)
{
    struct timespec at;
    clock_gettime(clock, &at);
    return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

/* The wall clock less what this thread has run and has waited for a CPU. */
static double blocked_now(int schedstat)
{
    char text[128] = "";
    if (pread(schedstat, text, sizeof text - 1, 0) < 0) {
        perror("schedstat");
        exit(1);
    }
    unsigned long long ran_ns, waited_ns;
    sscanf(text, "%llu %llu", &ran_ns, &waited_ns);
    return now(CLOCK_MONOTONIC) - now(CLOCK_THREAD_CPUTIME_ID) - (double)waited_ns * 1e-9;
}

static void sleep_ms(double ms)
{
    struct timespec wait = {(time_t)(ms / 1e3), (long)((ms - 1e3 * (int)(ms / 1e3)) * 1e6)};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &wait, NULL);
}

static void compute(double ms)
{
    double until = now(CLOCK_THREAD_CPUTIME_ID) + ms / 1e3;
    volatile uint64_t sum = 0;
    while (now(CLOCK_THREAD_CPUTIME_ID) < until) {
        for (int i = 0; i < 2000; i++) {
            sum += (uint64_t)i * 7;
        }
    }
}

static int connect_peer(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)peer_port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        perror("connect");
        exit(1);
    }
    return fd;
}

static void flush_for(int fd, double ms)
{
    double until = now(CLOCK_MONOTONIC) + ms / 1e3;
    char block[64 * 1024];
    memset(block, 7, sizeof block);
    do {
        if (pwrite(fd, block, sizeof block, 0) < 0 || fsync(fd) != 0) {
            perror("fsync");
            exit(1);
        }
    } while (now(CLOCK_MONOTONIC) < until);
}

static void *work(void *argument)
{
    Truth *truth = argument;
    truth->tid = syscall(SYS_gettid);
    int peer = connect_peer();
    char path[512];
    snprintf(path, sizeof path, "%s.%ld", file_path, truth->tid);
    int file = open(path, O_CREAT | O_RDWR, 0600);
    int schedstat = open("/proc/thread-self/schedstat", O_RDONLY);
    double began = now(CLOCK_MONOTONIC), cpu_began = now(CLOCK_THREAD_CPUTIME_ID);
    while (!atomic_load(&stopping)) {
        double at[PHASES + 1];
        at[CPU] = blocked_now(schedstat);
        compute(wanted_ms[CPU]);
        at[LOCK] = blocked_now(schedstat);
        pthread_mutex_lock(&shared_lock);
        pthread_mutex_unlock(&shared_lock);
        at[RECV] = blocked_now(schedstat);
        uint32_t wait_us = (uint32_t)(wanted_ms[RECV] * 1e3);
        if (send(peer, &wait_us, sizeof wait_us, 0) < 0 ||
            recv(peer, &wait_us, 4, MSG_WAITALL) < 0) {
            perror("peer");
            exit(1);
        }
        at[FSYNC] = blocked_now(schedstat);
        flush_for(file, wanted_ms[FSYNC]);
        at[TIMER] = blocked_now(schedstat);
        sleep_ms(wanted_ms[TIMER]);
        at[PHASES] = blocked_now(schedstat);
        for (int phase = LOCK; phase < PHASES; phase++) {
            truth->seconds[phase] += at[phase + 1] - at[phase];
        }
    }
    truth->seconds[CPU] = now(CLOCK_THREAD_CPUTIME_ID) - cpu_began;
    truth->wall = now(CLOCK_MONOTONIC) - began;
    unlink(path);
    return NULL;
}

static void *hold(void *argument)
{
    (void)argument;
    while (!atomic_load(&stopping)) {
        pthread_mutex_lock(&shared_lock);
        sleep_ms(wanted_ms[LOCK]);
        pthread_mutex_unlock(&shared_lock);
        sleep_ms(1.0);
    }
    return NULL;
}

int main(int count, char **arguments)
{
    if (count != 10) {
        return 2;
    }
    int threads = atoi(arguments[2]);
    peer_port = atoi(arguments[3]);
    file_path = arguments[4];
    for (int phase = 0; phase < PHASES; phase++) {
        wanted_ms[phase] = atof(arguments[5 + phase]);
    }
    pthread_t workers[64], holder;
    static Truth truth[64];
    if (threads < 1 || threads > 64) {
        return 2;
    }
    pthread_create(&holder, NULL, hold, NULL);
    for (int i = 0; i < threads; i++) {
        pthread_create(&workers[i], NULL, work, &truth[i]);
    }
    printf("ready\n");
    fflush(stdout);
    sleep_ms(atof(arguments[1]) * 1e3);
    atomic_store(&stopping, true);
    for (int i = 0; i < threads; i++) {
        pthread_join(workers[i], NULL);
        printf("%ld %f %f %f %f %f %f\n", truth[i].tid, truth[i].seconds[CPU],
               truth[i].seconds[LOCK], truth[i].seconds[RECV], truth[i].seconds[FSYNC],
               truth[i].seconds[TIMER], truth[i].wall);
    }
    pthread_join(holder, NULL);
    return 0;
}

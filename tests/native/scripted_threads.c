/* Threads of known behaviour: one per argument. The first line printed has a word per thread,
 * "role:tid:detail:detail". Role burn begins when a line is read and prints the CPU ns it used. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { WORD_BYTES = 128 };

typedef struct {
    const char *role;
    char word[WORD_BYTES];
    pthread_barrier_t *told;
} script;

static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t holding;
static volatile long holder_tid;

static long own_tid(void)
{
    return syscall(SYS_gettid);
}

static unsigned long inode_of(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 ? (unsigned long)status.st_ino : 0;
}

static int quiet_socket(void)
{
    int pair[2];
    return socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 ? pair[0] : -1;
}

static long long clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void tell(script *self, const char *details)
{
    snprintf(self->word, sizeof self->word, "%s:%ld:%s", self->role, own_tid(), details);
    pthread_barrier_wait(self->told);
}

static void wait_for_ever(void)
{
    struct timespec hour = {3600, 0};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &hour, NULL) == EINTR) {
    }
}

static void burn(script *self)
{
    char line[16];
    tell(self, "");
    if (fgets(line, sizeof line, stdin) == NULL) {
        return;
    }
    long long began_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    long long until_ns = clock_ns(CLOCK_MONOTONIC) + 2000000000LL;
    while (clock_ns(CLOCK_MONOTONIC) < until_ns) {
        long long pause_ns = clock_ns(CLOCK_MONOTONIC) + 5000000;
        while (clock_ns(CLOCK_MONOTONIC) < pause_ns) {
        }
        usleep(3000);
    }
    printf("%lld\n", clock_ns(CLOCK_THREAD_CPUTIME_ID) - began_ns);
    fflush(stdout);
    wait_for_ever();
}

static void receive(script *self)
{
    char byte, details[32];
    int fd = quiet_socket();
    snprintf(details, sizeof details, "%d:%lu", fd, inode_of(fd));
    tell(self, details);
    recv(fd, &byte, 1, 0);
}

static void flush(script *self)
{
    static char block[1 << 20];
    char path[] = "flushed-XXXXXX";
    int fd = mkstemp(path);
    unlink(path);
    tell(self, "");
    while (pwrite(fd, block, sizeof block, 0) > 0 && fsync(fd) == 0) {
    }
}

static void lock(script *self)
{
    char details[32];
    pthread_barrier_wait(&holding);
    snprintf(details, sizeof details, "%ld:%llu", holder_tid, (unsigned long long)(size_t)&held);
    tell(self, details);
    pthread_mutex_lock(&held);
}

static void hold(script *self)
{
    pthread_mutex_lock(&held);
    holder_tid = own_tid();
    pthread_barrier_wait(&holding);
    tell(self, "");
    wait_for_ever();
}

static void poll_one(script *self)
{
    char details[32];
    struct pollfd polled = {quiet_socket(), POLLIN, 0};
    snprintf(details, sizeof details, "%d:%lu", polled.fd, inode_of(polled.fd));
    tell(self, details);
    poll(&polled, 1, -1);
}

static void poll_three(script *self)
{
    int ends[2];
    char details[96];
    if (pipe(ends) != 0) {
        exit(1);
    }
    struct pollfd polled[3] = {{quiet_socket(), POLLIN, 0}, {ends[0], POLLIN | POLLPRI, 0},
                               {quiet_socket(), POLLIN, 0}};
    snprintf(details, sizeof details, "%lu:%lu:%lu", inode_of(polled[0].fd),
             inode_of(polled[1].fd), inode_of(polled[2].fd));
    tell(self, details);
    poll(polled, 3, -1);
}

static void select_two(script *self)
{
    char details[64];
    fd_set wanted;
    int low = quiet_socket(), high = fcntl(quiet_socket(), F_DUPFD, 700);
    FD_ZERO(&wanted);
    FD_SET(low, &wanted);
    FD_SET(high, &wanted);
    snprintf(details, sizeof details, "%d:%lu:%d:%lu", low, inode_of(low), high, inode_of(high));
    tell(self, details);
    select(high + 1, &wanted, NULL, NULL, NULL);
}

static void sleep_long(script *self)
{
    tell(self, "");
    wait_for_ever();
}

static void wander(script *self) /* wakes 1000 times a second */
{
    tell(self, "");
    for (;;) {
        usleep(1000);
    }
}

static void rename_self(script *self)
{
    prctl(PR_SET_NAME, "a) R (b", 0, 0, 0);
    tell(self, "");
    wait_for_ever();
}

static void exec_program(script *self)
{
    tell(self, "");
    usleep(700000);
    execl("/proc/self/exe", "scripted", "sleep", (char *)NULL);
}

static const struct {
    const char *role;
    void (*act)(script *self);
} roles[] = {
    {"burn", burn},         {"recv", receive},       {"fsync", flush},
    {"lock", lock},         {"hold", hold},          {"poll1", poll_one},
    {"poll3", poll_three},  {"select2", select_two}, {"sleep", sleep_long},
    {"wander", wander},     {"rename", rename_self}, {"exec", exec_program},
};

static void *act(void *argument)
{
    script *self = argument;
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        if (strcmp(roles[i].role, self->role) == 0) {
            roles[i].act(self);
        }
    }
    return NULL;
}

int main(int count, char **arguments)
{
    pthread_barrier_t told;
    script *scripts = calloc((size_t)count, sizeof *scripts);
    pthread_barrier_init(&holding, NULL, 2);
    pthread_barrier_init(&told, NULL, (unsigned)count);
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0); /* where Yama asks for it */
    for (int i = 1; i < count; i++) {
        pthread_t thread;
        pthread_attr_t small;
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, 64 * 1024);
        scripts[i] = (script){.role = arguments[i], .told = &told};
        if (pthread_create(&thread, &small, act, &scripts[i]) != 0) {
            return 1;
        }
    }
    pthread_barrier_wait(&told);
    for (int i = 1; i < count; i++) {
        printf("%s%s", scripts[i].word, i + 1 < count ? " " : "\n");
    }
    fflush(stdout);
    wait_for_ever();
    return 0;
}

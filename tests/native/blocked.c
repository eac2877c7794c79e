/* Thirteen threads, each blocked in a function that is named after what it waits for. Prints
 * "ready" once all are under way. */
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PLACE(name) static __attribute__((noinline)) void name(void)

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t other = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static sem_t semaphore;
static pthread_t sleeper;
static int pipes[2], listener, pairs[2], kept;
static volatile int done; /* so that no call is the last thing a function does */

PLACE(wait_for_mutex) { pthread_mutex_lock(&mutex); done++; }
PLACE(wait_for_condition)
{
    pthread_mutex_lock(&other);
    pthread_cond_wait(&condition, &other);
    done++;
}
PLACE(wait_for_semaphore) { sem_wait(&semaphore); done++; }
PLACE(wait_at_barrier) { pthread_barrier_wait(&barrier); done++; }
PLACE(wait_for_join) { pthread_join(sleeper, NULL); done++; }
PLACE(wait_in_sleep)
{
    struct timespec long_time = {1000, 0};
    nanosleep(&long_time, NULL);
    done++;
}
PLACE(wait_for_pipe)
{
    char byte;
    done += (int)read(pipes[0], &byte, 1);
}
PLACE(wait_for_socket)
{
    char byte;
    done += (int)recv(pairs[0], &byte, 1, 0);
}
PLACE(wait_for_accept) { done += accept(listener, NULL, NULL); }
PLACE(wait_in_epoll)
{
    struct epoll_event event = {.events = EPOLLIN};
    int epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, pairs[0], &event);
    done += epoll_wait(epoll, &event, 1, -1);
}
PLACE(wait_in_poll)
{
    struct pollfd polled = {.fd = pairs[0], .events = POLLIN};
    done += poll(&polled, 1, -1);
}
PLACE(wait_in_select)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(pipes[0], &set);
    done += select(pipes[0] + 1, &set, NULL, NULL, NULL);
}
PLACE(wait_for_signal)
{
    sigset_t none;
    sigfillset(&none);
    sigsuspend(&none);
    done++;
}

static void (*const places[])(void) = {
    wait_for_mutex, wait_for_condition, wait_for_semaphore, wait_at_barrier, wait_for_join,
    wait_in_sleep,  wait_for_pipe,      wait_for_socket,    wait_for_accept, wait_in_epoll,
    wait_in_poll,   wait_in_select,     wait_for_signal,
};

static void *run(void *place)
{
    (*(void (*const *)(void))place)();
    return NULL;
}

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    pthread_mutex_lock(&mutex);
    pthread_barrier_init(&barrier, NULL, 2);
    sem_init(&semaphore, 0, 0);
    kept = pipe(pipes) + socketpair(AF_UNIX, SOCK_STREAM, 0, pairs);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    kept += bind(listener, (struct sockaddr *)&address, sizeof address) + listen(listener, 1);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        pthread_t *thread = places[i] == wait_in_sleep ? &sleeper : &(pthread_t){0};
        if (places[i] != wait_for_join) {
            pthread_create(thread, NULL, run, (void *)&places[i]);
        }
    }
    pthread_t last;
    pthread_create(&last, NULL, run, (void *)&places[4]);
    usleep(100000);
    puts("ready");
    fflush(stdout);
    pause();
    return kept;
}

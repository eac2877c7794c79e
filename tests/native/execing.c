/* Executes itself again and again, each time with a thread that sleeps; for so many rounds. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *rest(void *unused)
{
    pause();
    return unused;
}

int main(int count, char **words)
{
    pthread_t thread;
    char left[16];
    int rounds = count > 1 ? atoi(words[1]) : 100;
    pthread_create(&thread, NULL, rest, NULL);
    usleep(3000);
    if (rounds > 0) {
        snprintf(left, sizeof left, "%d", rounds - 1);
        execl("/proc/self/exe", words[0], left, (char *)NULL);
    }
    pause();
    return 0;
}

#include "pk_socket_sampler.h"

#include "pk_socket_recorder.h"
#include "pk_thread.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const int64_t START_WAIT_NS = 1000000000;
static const int64_t HEAR_INTERVAL_NS = 40000000;
enum { JITTER_PERCENT = 20, STACK_BYTES = 512 * 1024 };

struct pk_socket_sampler {
    struct pk_socket_recorder recorder; /* the thread's own */
    char *namespace_path;
    pthread_t thread;
    int64_t *fetched_inodes; /* the thread's own */
    bool is_started;
    bool is_abandoned;
    bool is_ended;

    pthread_mutex_t lock; /* guards what follows; never held across a system call that may block */
    pthread_cond_t changed;
    bool is_ready;
    bool is_called; /* to stop, or to look at new inodes at once */
    bool is_stopping;
    bool is_finished;
    int start_error;
    enum pk_socket_stage start_stage;
    int64_t *inodes; /* given, not yet fetched by the thread */
    size_t inode_count;
    int64_t inode_dropped_count;
    bool has_new_inodes;
    double budget_ratio;
    struct pk_socket_batch batches[2];
    size_t active;
    struct pk_socket_stats stats;
};

/* Waits under the lock until the instant, or until flag is set. */
static void wait_until(struct pk_socket_sampler *sampler, const bool *flag, int64_t deadline_ns)
{
    pk_thread_wait_for(&sampler->changed, &sampler->lock, flag, deadline_ns);
}

/* Moves the calling thread, and only it, into the namespace, unless it is there already. */
static int enter_namespace(struct pk_socket_sampler *sampler, enum pk_socket_stage *ret_stage)
{
    *ret_stage = PK_SOCKET_STAGE_OPEN_NAMESPACE;
    if (sampler->namespace_path == NULL) {
        sampler->recorder.stats.is_own_namespace = 1;
        return 0;
    }
    const int wanted = open(sampler->namespace_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (wanted < 0) {
        return errno;
    }
    struct stat there = {0};
    struct stat here = {0};
    int error = fstat(wanted, &there) == 0 ? 0 : errno;
    if (error == 0 && stat("/proc/thread-self/ns/net", &here) == 0 && here.st_ino == there.st_ino &&
        here.st_dev == there.st_dev) {
        sampler->recorder.stats.is_own_namespace = 1;
    } else if (error == 0) {
        *ret_stage = PK_SOCKET_STAGE_ENTER_NAMESPACE;
        error = setns(wanted, CLONE_NEWNET) == 0 ? 0 : errno;
    }
    close(wanted);
    return error;
}

static void share(struct pk_socket_sampler *sampler)
{
    pthread_mutex_lock(&sampler->lock);
    pk_socket_batch_move(&sampler->recorder.fresh, &sampler->batches[sampler->active]);
    sampler->stats = sampler->recorder.stats;
    pthread_mutex_unlock(&sampler->lock);
}

/* Books what the thread has used since the last poll: falling asleep, waking up and handing
 * rows over are a part of what polls cost. */
static void account(struct pk_socket_recorder *recorder, int64_t dump_before_ns)
{
    struct pk_socket_stats *stats = &recorder->stats;
    const int64_t used_ns = pk_thread_cpu_ns();
    const int64_t dump_ns = stats->dump_cpu_ns - dump_before_ns;
    pk_socket_pace_account_poll(&recorder->pace, used_ns - stats->cpu_ns - dump_ns,
                                (uint32_t)stats->polled_count, (uint32_t)stats->socket_count);
    stats->cpu_ns = used_ns;
    stats->interval_ns = recorder->pace.interval_ns;
}

/* The instant of the next poll: slots lie interval_ns apart, the poll somewhere in the middle of
 * its slot, so that it keeps no step with the target. Slots that are past are not made up for. */
static int64_t plan_next(struct pk_socket_recorder *recorder, int64_t *slot_ns)
{
    const int64_t interval_ns = recorder->stats.interval_ns;
    const int64_t now_ns = pk_clock_ns();
    *slot_ns += interval_ns;
    if (*slot_ns < now_ns) {
        *slot_ns += (now_ns - *slot_ns) / interval_ns * interval_ns;
    }
    const int64_t jitter_ns = interval_ns * JITTER_PERCENT / 100;
    recorder->random_state ^= recorder->random_state << 13;
    recorder->random_state ^= recorder->random_state >> 7;
    recorder->random_state ^= recorder->random_state << 17;
    return *slot_ns - jitter_ns + (int64_t)(recorder->random_state % (uint64_t)(2 * jitter_ns + 1));
}

static void fetch_orders(struct pk_socket_sampler *sampler)
{
    pthread_mutex_lock(&sampler->lock);
    sampler->recorder.pace.budget_ratio = sampler->budget_ratio;
    const bool has_new = sampler->has_new_inodes;
    const size_t count = sampler->inode_count;
    if (has_new) {
        int64_t *const inodes = sampler->inodes;
        sampler->inodes = sampler->fetched_inodes;
        sampler->fetched_inodes = inodes;
        sampler->has_new_inodes = false;
    }
    pthread_mutex_unlock(&sampler->lock);
    if (has_new) {
        pk_socket_recorder_set_inodes(&sampler->recorder, sampler->fetched_inodes, count);
    }
}

/* Under the lock: waits for the next poll, or to be called. Where connections end, what has ended
 * is read meanwhile. */
static void wait_for_poll(struct pk_socket_sampler *sampler, int64_t next_ns)
{
    struct pk_socket_recorder *recorder = &sampler->recorder;
    int64_t now_ns = pk_clock_ns();
    while (now_ns < recorder->prompt_until_ns && now_ns + HEAR_INTERVAL_NS < next_ns) {
        wait_until(sampler, &sampler->is_called, now_ns + HEAR_INTERVAL_NS);
        if (sampler->is_called) {
            return;
        }
        pthread_mutex_unlock(&sampler->lock);
        pk_socket_recorder_hear(recorder);
        pthread_mutex_lock(&sampler->lock);
        now_ns = pk_clock_ns();
    }
    wait_until(sampler, &sampler->is_called, next_ns);
}

static void poll_until_stopped(struct pk_socket_sampler *sampler)
{
    struct pk_socket_recorder *recorder = &sampler->recorder;
    int64_t slot_ns = pk_clock_ns();
    recorder->stats.start_ns = slot_ns;
    recorder->stats.cpu_ns = pk_thread_cpu_ns();
    pthread_mutex_lock(&sampler->lock);
    while (!sampler->is_stopping) {
        pthread_mutex_unlock(&sampler->lock);
        fetch_orders(sampler);
        const int64_t dump_before_ns = recorder->stats.dump_cpu_ns;
        pk_socket_recorder_poll(recorder);
        account(recorder, dump_before_ns);
        share(sampler);
        const int64_t next_ns = plan_next(recorder, &slot_ns);
        pthread_mutex_lock(&sampler->lock);
        wait_for_poll(sampler, next_ns);
        sampler->is_called = false;
    }
    pthread_mutex_unlock(&sampler->lock);
}

static void *run(void *context)
{
    struct pk_socket_sampler *sampler = context;
    enum pk_socket_stage stage = PK_SOCKET_STAGE_NONE;
    int error = enter_namespace(sampler, &stage);
    if (error == 0) {
        stage = PK_SOCKET_STAGE_QUERY;
        error = pk_socket_query_init(&sampler->recorder.query);
        sampler->recorder.stats.closed_error = sampler->recorder.query.closed_error;
    }
    pthread_mutex_lock(&sampler->lock);
    sampler->stats = sampler->recorder.stats;
    sampler->start_error = error;
    sampler->start_stage = error == 0 ? PK_SOCKET_STAGE_NONE : stage;
    sampler->is_ready = true;
    pthread_cond_broadcast(&sampler->changed);
    pthread_mutex_unlock(&sampler->lock);
    if (error == 0) {
        poll_until_stopped(sampler);
        pk_socket_recorder_flush(&sampler->recorder);
        share(sampler);
    }
    pthread_mutex_lock(&sampler->lock);
    sampler->is_finished = true;
    pthread_cond_broadcast(&sampler->changed);
    pthread_mutex_unlock(&sampler->lock);
    return NULL;
}

static int start_thread(struct pk_socket_sampler *sampler)
{
    const int error =
        pk_thread_start("perfkit-sockets", STACK_BYTES, run, sampler, &sampler->thread);
    sampler->is_started = error == 0;
    return error;
}

static int init_shared(struct pk_socket_sampler *sampler, const struct pk_socket_config *config)
{
    sampler->recorder.query.descriptor = -1; /* nothing to close if what follows fails */
    sampler->recorder.query.closed_descriptor = -1;
    pk_thread_init_condition(&sampler->changed);
    pthread_mutex_init(&sampler->lock, NULL);
    if (config->namespace_path != NULL) {
        sampler->namespace_path = strdup(config->namespace_path);
        if (sampler->namespace_path == NULL) {
            return ENOMEM;
        }
    }
    sampler->budget_ratio = config->budget_ratio;
    sampler->inodes = calloc(config->inode_limit, sizeof *sampler->inodes);
    sampler->fetched_inodes = calloc(config->inode_limit, sizeof *sampler->inodes);
    if (sampler->inodes == NULL || sampler->fetched_inodes == NULL) {
        return ENOMEM;
    }
    int error = pk_socket_batch_init(&sampler->batches[0], config->row_limit);
    if (error == 0) {
        error = pk_socket_batch_init(&sampler->batches[1], config->row_limit);
    }
    return error != 0 ? error : pk_socket_recorder_init(&sampler->recorder, config);
}

int pk_socket_sampler_create(const struct pk_socket_config *config, struct pk_socket_sampler **ret,
                             enum pk_socket_stage *ret_stage)
{
    *ret_stage = PK_SOCKET_STAGE_THREAD;
    struct pk_socket_sampler *sampler = calloc(1, sizeof *sampler);
    if (sampler == NULL) {
        return ENOMEM;
    }
    int error = init_shared(sampler, config);
    if (error == 0) {
        error = start_thread(sampler);
    }
    if (error == 0) {
        pthread_mutex_lock(&sampler->lock);
        wait_until(sampler, &sampler->is_ready, pk_clock_ns() + START_WAIT_NS);
        error = sampler->is_ready ? sampler->start_error : ETIMEDOUT;
        *ret_stage = sampler->is_ready ? sampler->start_stage : PK_SOCKET_STAGE_OPEN_NAMESPACE;
        pthread_mutex_unlock(&sampler->lock);
    }
    if (error != 0) {
        pk_socket_sampler_destroy(sampler);
        return error;
    }
    *ret = sampler;
    return 0;
}

void pk_socket_sampler_set_inodes(struct pk_socket_sampler *sampler, const int64_t *inodes,
                                  size_t count)
{
    const size_t limit = sampler->recorder.config.inode_limit;
    pthread_mutex_lock(&sampler->lock);
    sampler->inode_count = count < limit ? count : limit;
    sampler->inode_dropped_count += (int64_t)(count - sampler->inode_count);
    memcpy(sampler->inodes, inodes, sampler->inode_count * sizeof *inodes);
    sampler->has_new_inodes = true;
    sampler->is_called = true;
    pthread_cond_broadcast(&sampler->changed);
    pthread_mutex_unlock(&sampler->lock);
}

void pk_socket_sampler_set_budget(struct pk_socket_sampler *sampler, double budget_ratio)
{
    pthread_mutex_lock(&sampler->lock);
    sampler->budget_ratio = budget_ratio;
    pthread_mutex_unlock(&sampler->lock);
}

struct pk_socket_batch *pk_socket_sampler_take(struct pk_socket_sampler *sampler)
{
    pthread_mutex_lock(&sampler->lock);
    struct pk_socket_batch *taken = &sampler->batches[sampler->active];
    sampler->active ^= 1;
    pthread_mutex_unlock(&sampler->lock);
    return taken;
}

void pk_socket_sampler_read_stats(struct pk_socket_sampler *sampler, struct pk_socket_stats *ret)
{
    pthread_mutex_lock(&sampler->lock);
    *ret = sampler->stats;
    ret->inode_dropped_count = sampler->inode_dropped_count;
    pthread_mutex_unlock(&sampler->lock);
}

int pk_socket_sampler_stop(struct pk_socket_sampler *sampler, int64_t wait_ns)
{
    if (!sampler->is_started || sampler->is_ended) {
        return sampler->is_abandoned ? ETIMEDOUT : 0;
    }
    sampler->is_ended = true;
    pthread_mutex_lock(&sampler->lock);
    sampler->is_called = true;
    sampler->is_stopping = true;
    pthread_cond_broadcast(&sampler->changed);
    wait_until(sampler, &sampler->is_finished, pk_clock_ns() + wait_ns);
    sampler->is_abandoned = !sampler->is_finished;
    pthread_mutex_unlock(&sampler->lock);
    if (sampler->is_abandoned) {
        pthread_detach(sampler->thread);
        return ETIMEDOUT;
    }
    return pthread_join(sampler->thread, NULL);
}

void pk_socket_sampler_destroy(struct pk_socket_sampler *sampler)
{
    if (pk_socket_sampler_stop(sampler, 300000000) == ETIMEDOUT) {
        return; /* the thread still uses its memory */
    }
    pk_socket_recorder_deinit(&sampler->recorder);
    pk_socket_batch_deinit(&sampler->batches[0]);
    pk_socket_batch_deinit(&sampler->batches[1]);
    pthread_cond_destroy(&sampler->changed);
    pthread_mutex_destroy(&sampler->lock);
    free(sampler->inodes);
    free(sampler->fetched_inodes);
    free(sampler->namespace_path);
    free(sampler);
}

/* How a shared histogram is made and ended; part of perfkit_histogram.h, which includes it. */
#ifndef PERFKIT_HISTOGRAM_OPEN_H
#define PERFKIT_HISTOGRAM_OPEN_H
#include "perfkit_histogram.h"

/* The least e with value <= 2^e, of a positive, finite, normal value. */
static inline int32_t perfkit_to_exponent(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    const bool is_power = (bits & ((1ULL << 52) - 1)) == 0;
    return (int32_t)(bits >> 52) - PERFKIT_EXPONENT_BIAS + (is_power ? 0 : 1);
}

static inline const char *perfkit_options_unit(const perfkit_histogram_options *options)
{
    return options->unit == NULL ? "ns" : options->unit;
}

/* Writes the range of buckets; what is wrong with it, or NULL. */
static inline const char *perfkit_find_range(const perfkit_histogram_options *options,
                                             perfkit_file_header *header)
{
    static const double LEAST = 4.450147717014403e-308; /* 2^-1021 */
    static const double GREATEST = 8.98846567431158e307; /* 2^1023 */
    const double low = options->min_value;
    const double high = options->max_value;
    if (low == 0 && high == 0) {
        header->low_exponent = perfkit_unit_low_exponent(perfkit_options_unit(options));
        header->high_exponent = header->low_exponent + PERFKIT_OCTAVES_DEFAULT;
        return NULL;
    }
    if (!(low >= LEAST && low <= high && high <= GREATEST)) {
        return "min_value and max_value must be ascending, from 2^-1021 to 2^1023";
    }
    header->low_exponent = perfkit_to_exponent(low) - 1;
    header->high_exponent = perfkit_to_exponent(high);
    return header->high_exponent - header->low_exponent <= PERFKIT_OCTAVES_MAX
               ? NULL
               : "max_value must be at most 2^127 times min_value";
}

/* Writes the labels, one after another; what is wrong with them, or NULL. */
static inline const char *perfkit_write_labels(const char *const *labels,
                                               perfkit_file_header *header)
{
    size_t used_bytes = 0;
    for (size_t i = 0; labels != NULL && labels[i] != NULL; i++) {
        const size_t size_bytes = strlen(labels[i]) + 1;
        if (i >= PERFKIT_LABELS_MAX || size_bytes >= PERFKIT_LABELS_BYTES - used_bytes) {
            return "labels must be at most 16, with their values at most 767 bytes in all";
        }
        if (size_bytes == 1) {
            return "a label must not be empty";
        }
        memcpy(header->labels + used_bytes, labels[i], size_bytes);
        used_bytes += size_bytes;
    }
    return perfkit_labels_fault(header->labels);
}

/* Writes what follows from the options; what is wrong with them, as a sentence, or NULL. */
static inline const char *perfkit_fill_header(const perfkit_histogram_options *options,
                                              perfkit_file_header *header)
{
    const char *unit = perfkit_options_unit(options);
    memset(header, 0, sizeof(*header));
    if (options->name == NULL || !perfkit_is_name(options->name)) {
        return "name must be a letter or _, then letters, digits, _ . : and -, at most 63 bytes";
    }
    if (!perfkit_is_text(unit, PERFKIT_UNIT_BYTES)) {
        return "unit must be at most 63 bytes of UTF-8 without control characters";
    }
    if (options->shard_count > PERFKIT_SHARDS_MAX) {
        return "shard_count must be at most 1024";
    }
    memcpy(header->name, options->name, strlen(options->name));
    memcpy(header->unit, unit, strlen(unit));
    const char *fault = perfkit_find_range(options, header);
    if (fault == NULL) {
        fault = perfkit_write_labels(options->labels, header);
    }
    if (fault != NULL) {
        return fault;
    }
    memcpy(header->magic, PERFKIT_MAGIC, sizeof(header->magic));
    header->byte_order = PERFKIT_BYTE_ORDER;
    header->version = PERFKIT_LAYOUT_VERSION;
    header->header_bytes = sizeof(*header);
    header->scale = PERFKIT_SCALE;
    header->slot_count = (uint32_t)(header->high_exponent - header->low_exponent) << PERFKIT_SCALE;
    header->shard_count =
        options->shard_count == 0 ? (uint32_t)PERFKIT_SHARDS_DEFAULT : options->shard_count;
    header->shard_bytes = perfkit_shard_bytes(header->slot_count);
    header->file_bytes = perfkit_file_bytes(header->shard_bytes, header->shard_count);
    header->creator_pid = (uint32_t)syscall(SYS_getpid);
    header->pid_namespace = perfkit_find_namespace();
    header->checksum = perfkit_header_checksum(header);
    return NULL;
}

/* A file in memory with room for all of it, which nobody can take away again. At its limit of file
 * sizes a process is sent a signal, which ends it: so that is asked for first. */
static inline int perfkit_make_file(uint64_t size_bytes, int *ret)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        limit.rlim_cur < size_bytes) {
        return EFBIG;
    }
    unsigned flags = PERFKIT_MFD_CLOEXEC | PERFKIT_MFD_ALLOW_SEALING;
    long made = syscall(SYS_memfd_create, PERFKIT_FILE_NAME, flags | PERFKIT_MFD_NOEXEC_SEAL);
    if (made < 0 && errno == EINVAL) {
        made = syscall(SYS_memfd_create, PERFKIT_FILE_NAME, flags);
    }
    if (made < 0) {
        return errno;
    }
    int error = EINTR;
    for (int attempts = 0; error == EINTR && attempts < 1000; attempts++) {
        error = syscall(SYS_fallocate, (int)made, 0, 0L, (long)size_bytes) == 0 ? 0 : errno;
    }
    if (error != 0) {
        (void)close((int)made);
        return error;
    }
    *ret = (int)made;
    return 0;
}

/* Writes the header and empty shards; readers trust them once the generation is there. */
static inline void perfkit_histogram_write(perfkit_histogram *histogram)
{
    perfkit_file_header *written = (perfkit_file_header *)(void *)histogram->base;
    *written = histogram->header;
    for (uint32_t index = 0; index <= histogram->header.shard_count; index++) {
        perfkit_shard_head *head = perfkit_histogram_head(histogram, index);
        head->min = __builtin_inf();
        head->max = -__builtin_inf();
    }
    __atomic_store_n(&written->generation, perfkit_now_ns() & ~1ULL, __ATOMIC_RELEASE);
}

/* Maps, writes and seals the file, and makes the page that a child finds empty. */
static inline int perfkit_histogram_map(perfkit_histogram *histogram)
{
    void *base = mmap(NULL, histogram->size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                      histogram->descriptor, 0);
    if (base == MAP_FAILED) {
        return errno;
    }
    histogram->base = (unsigned char *)base;
    perfkit_histogram_write(histogram);
    histogram->process = perfkit_process_new(histogram->header.slot_count);
    if (histogram->process == NULL ||
        syscall(SYS_fcntl, histogram->descriptor, PERFKIT_ADD_SEALS, PERFKIT_SEALS) != 0 ||
        fstat(histogram->descriptor, &histogram->identity) != 0) {
        return errno;
    }
    return 0;
}

/* Ends it in this process: its threads must have ended, or record no more. The file is gone with
 * the last process that has it. A descriptor that somebody else closed, and that may be another
 * file by now, is left alone. */
static inline void perfkit_histogram_close(perfkit_histogram *histogram)
{
    struct stat found;
    if (histogram->key_plus_one != 0) {
        pthread_key_t key = (pthread_key_t)(histogram->key_plus_one - 1);
        void *shard = pthread_getspecific(key);
        if (shard != NULL) {
            perfkit_thread_shard_end(shard);
        }
        (void)pthread_key_delete(key);
    }
    if (histogram->process != NULL) {
        (void)munmap(histogram->process, PERFKIT_PROCESS_BYTES);
    }
    if (histogram->base != NULL) {
        (void)munmap(histogram->base, histogram->size_bytes);
    }
    const struct stat *own = &histogram->identity;
    if (own->st_ino == 0 || (fstat(histogram->descriptor, &found) == 0 &&
                             found.st_ino == own->st_ino && found.st_dev == own->st_dev)) {
        (void)close(histogram->descriptor);
    }
    free(histogram);
}

/* What is wrong with options, as a sentence; NULL: nothing. */
static inline const char *perfkit_histogram_fault(const perfkit_histogram_options *options)
{
    perfkit_file_header header;
    return perfkit_fill_header(options, &header);
}

/* Makes one. EINVAL: the options are wrong, as perfkit_histogram_fault tells, or Linux is older
 * than 4.14; ENOSPC, ENOMEM, EMFILE, EFBIG: there is no room for it. */
static inline int perfkit_histogram_open(const perfkit_histogram_options *options,
                                         perfkit_histogram **ret)
{
    perfkit_histogram *histogram = (perfkit_histogram *)calloc(1, sizeof(perfkit_histogram));
    if (histogram == NULL) {
        return ENOMEM;
    }
    int error = perfkit_fill_header(options, &histogram->header) == NULL ? 0 : EINVAL;
    histogram->size_bytes = (size_t)histogram->header.file_bytes;
    if (error == 0) {
        error = perfkit_make_file(histogram->size_bytes, &histogram->descriptor);
    }
    if (error != 0) {
        free(histogram);
        return error;
    }
    error = perfkit_histogram_map(histogram);
    if (error != 0) {
        perfkit_histogram_close(histogram);
        return error;
    }
    histogram->common.head = perfkit_histogram_head(histogram, 0);
    histogram->common.process = histogram->process;
    histogram->common.slot_count = &histogram->process->none;
    histogram->common.histogram = histogram;
    *ret = histogram;
    return 0;
}

#endif

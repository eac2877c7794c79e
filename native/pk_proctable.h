/* The processes whose stacks are wanted, and what code each maps. Who is wanted is told from
 * outside (a list, or everybody), and with a process all that it begets. The table has a fixed
 * size: who was not met for longest makes room. One thread uses it. */
#ifndef PK_PROCTABLE_H
#define PK_PROCTABLE_H
#include "pk_maps.h"

enum {
    PK_PROCTABLE_SETS = 256,
    PK_PROCTABLE_WAYS = 8,
    PK_PROCTABLE_MAPPING_LIMIT = 1 << 17, /* of all processes; 8 MB */
    PK_PROCTABLE_WANTED_LIMIT = 4096,
    PK_PROCTABLE_READ_BURST = 48,  /* maps that may be read at once, */
    PK_PROCTABLE_READS_PER_S = 16, /* and later on */
};

/* The processes that are wanted, by number. */
typedef struct {
    bool is_all;
    size_t count;
    pid_t pids[];
} pk_wanted;

typedef struct {
    pid_t pid; /* 0: unused */
    bool is_heir;  /* wanted since its parent is */
    bool has_maps; /* as they were at read_ns, and what was told since */
    bool is_stale; /* records were lost: they shall be read again */
    int64_t read_ns;
    int64_t tried_ns;
    uint64_t used; /* the higher, the later */
    pk_maps maps;
} pk_proctable_entry;

typedef struct {
    pk_proctable_entry *entries;
    pk_wanted *wanted; /* NULL: nobody */
    int proc;          /* an open folder, not owned */
    uint64_t use_count;
    size_t mapping_count;
    double read_tokens;
    int64_t refilled_ns;
    int64_t process_count; /* that are in the table */
    int64_t read_count;
    int64_t refused_count; /* reads that failed */
    int64_t evicted_count;
    int64_t dropped_mapping_count; /* for which there was no room */
} pk_proctable;

/* Returns an errno value. */
int pk_proctable_init(pk_proctable *table, int proc, int64_t now_ns);
void pk_proctable_deinit(pk_proctable *table);

/* A list of who is wanted, sorted; NULL: no memory. The caller frees it, or gives it away. */
pk_wanted *pk_wanted_new(const pid_t *pids, size_t count, bool is_all);

/* Changes who is wanted; the list is the table's from here on. */
void pk_proctable_set_wanted(pk_proctable *table, pk_wanted *wanted);

bool pk_proctable_is_wanted(pk_proctable *table, pid_t pid);

/* The mappings of a process, read where that is due. NULL: they are not known, since they cannot be
 * read or too many were. */
pk_maps *pk_proctable_find_maps(pk_proctable *table, pid_t pid, int64_t now_ns);

/* What the kernel told, and when. */
void pk_proctable_add_mapping(pk_proctable *table, pid_t pid, const pk_mapping *mapping,
                              int64_t t_ns);
void pk_proctable_note_exec(pk_proctable *table, pid_t pid, int64_t t_ns);
void pk_proctable_note_birth(pk_proctable *table, pid_t pid, pid_t parent, int64_t t_ns);
void pk_proctable_note_death(pk_proctable *table, pid_t pid);

/* Records were lost: what is known of mappings may be wrong. */
void pk_proctable_note_loss(pk_proctable *table);

#endif

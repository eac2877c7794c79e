/* A tree of frames over the stacks of a table, with counts, or over those of two with the counts
 * of each: a node is the frames from the root to it. Built once; nothing changes it.
 *
 * Nodes are numbered from the root, 0, each before its children and with all of its subtree behind
 * it, siblings in the order of their frames' texts: tables that are equal give equal trees.
 * Functions that can fail give 0 or an errno value. */
#ifndef PK_STACKTREE_H
#define PK_STACKTREE_H
#include "pk_stacktable.h"

enum { PK_TREE_SIDE_MAX = 2 };
static const size_t PK_FOLDED_BYTES_MAX = (size_t)1 << 30;

/* Of the later side in the first place, of the earlier one in the second. */
typedef struct {
    pk_framenames names; /* in the order of their texts; cannot be interned in */
    uint32_t *parents;   /* of the root: 0 */
    uint32_t *frames;    /* numbers of `names` */
    uint64_t *selfs[PK_TREE_SIDE_MAX];  /* counts that end in a node */
    uint64_t *totals[PK_TREE_SIDE_MAX]; /* and those below it */
    uint64_t weights[PK_TREE_SIDE_MAX]; /* counts are told by: a duration in ns, or a total */
    uint32_t node_count;
    int side_count;
    bool is_by_time; /* whether the weights are durations */
} pk_stacktree;

/* Makes `ret`, which is not initialised, the tree of a table's counts. ENOMEM. */
int pk_stacktree_build(const pk_stacktable *table, pk_stacktree *ret);

/* The same of two tables' counts. EEXIST, EOVERFLOW, ENOMEM. */
int pk_stacktree_compare(const pk_stacktable *later, const pk_stacktable *earlier,
                         bool is_by_time, pk_stacktree *ret);
void pk_stacktree_deinit(pk_stacktree *tree);

/* Makes `ret` a tree in which nodes below this share of the root's total, on each side, are one
 * node PK_FRAME_OTHER below their parent; no count is lost. ENOMEM. */
int pk_stacktree_prune(const pk_stacktree *tree, double ratio_min, pk_stacktree *ret);

/* How a node's total changed: later less earlier, each per second or as a share of its total. */
double pk_stacktree_change(const pk_stacktree *tree, uint32_t node);

/* One line for each node with counts of its own: frames outermost first with `;` between, and the
 * count; of two sides the earlier and the later count, the earlier one brought to the later one's
 * weight. At *ret, to be freed with free().
 * EOVERFLOW: more than PK_FOLDED_BYTES_MAX, or a count that is too large; ENOMEM. */
int pk_stacktree_fold(const pk_stacktree *tree, char **ret, size_t *ret_bytes);

#endif

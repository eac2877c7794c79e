#include "pk_stacktree.h"

#include <errno.h>
#include <stdlib.h>

static const double NS_PER_S = 1e9;

void pk_stacktree_deinit(pk_stacktree *tree)
{
    pk_framenames_deinit(&tree->names);
    free(tree->parents);
    free(tree->frames);
    for (int side = 0; side < PK_TREE_SIDE_MAX; side++) {
        free(tree->selfs[side]);
        free(tree->totals[side]);
    }
    *tree = (pk_stacktree){0};
}

/* Room for so many nodes, with counts of 0. */
static int allocate_nodes(pk_stacktree *tree, size_t count)
{
    tree->parents = malloc(count * sizeof *tree->parents);
    tree->frames = malloc(count * sizeof *tree->frames);
    bool is_short = tree->parents == NULL || tree->frames == NULL;
    for (int side = 0; side < tree->side_count; side++) {
        tree->selfs[side] = calloc(count, sizeof **tree->selfs);
        tree->totals[side] = calloc(count, sizeof **tree->totals);
        is_short |= tree->selfs[side] == NULL || tree->totals[side] == NULL;
    }
    return is_short ? ENOMEM : 0;
}

/* Gives back room behind the nodes; where that fails there is just more of it. */
static void *shrink(void *array, size_t size_bytes)
{
    void *moved = realloc(array, size_bytes);
    return moved == NULL ? array : moved;
}

static void shrink_nodes(pk_stacktree *tree)
{
    size_t count = tree->node_count;
    tree->parents = shrink(tree->parents, count * sizeof *tree->parents);
    tree->frames = shrink(tree->frames, count * sizeof *tree->frames);
    for (int side = 0; side < tree->side_count; side++) {
        tree->selfs[side] = shrink(tree->selfs[side], count * sizeof **tree->selfs);
        tree->totals[side] = shrink(tree->totals[side], count * sizeof **tree->totals);
    }
}

/* What a tree is made of. */
typedef struct {
    const pk_stacktable *table;
    const uint64_t *counts[PK_TREE_SIDE_MAX]; /* by stack */
    uint32_t *ranks;                          /* of frames */
    uint32_t *order;                          /* stacks that were counted, sorted */
    uint32_t order_count;
    uint64_t frame_count; /* in these stacks */
    uint32_t depth_max;
} material;

/* Sorts the stacks that were counted. */
static int sort_counted(material *of, int side_count)
{
    const pk_stacktable *table = of->table;
    of->ranks = malloc(table->names.count * sizeof *of->ranks);
    of->order = malloc((table->stack_count + 1UL) * sizeof *of->order);
    if (of->ranks == NULL || of->order == NULL ||
        pk_framenames_rank(&table->names, of->ranks) != 0) {
        return ENOMEM;
    }
    for (uint32_t i = 0; i < table->stack_count; i++) {
        uint64_t seen = of->counts[0][i] | (side_count > 1 ? of->counts[1][i] : 0);
        if (seen != 0) {
            uint32_t depth = table->stacks[i].depth;
            of->order[of->order_count++] = i;
            of->frame_count += depth;
            of->depth_max = depth > of->depth_max ? depth : of->depth_max;
        }
    }
    pk_stacktable_sort(table, of->ranks, of->order, of->order_count);
    return 0;
}

/* A node for each frame that a stack does not share with the one before. `path` has the nodes of
 * the last stack's frames, the root first. */
static void add_stacks(const material *of, uint32_t *path, pk_stacktree *tree)
{
    const pk_stacktable *table = of->table;
    uint32_t node_count = 1;
    path[0] = 0;
    tree->parents[0] = 0;
    tree->frames[0] = PK_FRAME_ROOT;
    for (uint32_t i = 0; i < of->order_count; i++) {
        uint32_t stack = of->order[i];
        const uint32_t *frames = pk_stacktable_frames(table, stack);
        uint32_t depth = table->stacks[stack].depth;
        uint32_t shared = i == 0 ? 0 : pk_stacktable_shared(table, of->order[i - 1], stack);
        for (uint32_t k = shared; k < depth; k++) {
            tree->parents[node_count] = path[k];
            tree->frames[node_count] = of->ranks[frames[k]];
            path[k + 1] = node_count++;
        }
        for (int side = 0; side < tree->side_count; side++) {
            tree->selfs[side][path[depth]] += of->counts[side][stack];
        }
    }
    tree->node_count = node_count;
}

/* Children stand behind their parents: one sweep from the end has all sums. */
static void sum_totals(pk_stacktree *tree)
{
    for (int side = 0; side < tree->side_count; side++) {
        uint64_t *totals = tree->totals[side];
        memcpy(totals, tree->selfs[side], tree->node_count * sizeof *totals);
        for (uint32_t node = tree->node_count - 1; node > 0; node--) {
            totals[tree->parents[node]] += totals[node];
        }
    }
}

static int build(material *of, pk_stacktree *ret)
{
    uint32_t *path = NULL;
    int error = sort_counted(of, ret->side_count);
    if (error == 0) {
        path = malloc((of->depth_max + 1UL) * sizeof *path);
        error = path == NULL ? ENOMEM : allocate_nodes(ret, of->frame_count + 1);
    }
    if (error == 0) {
        add_stacks(of, path, ret);
        shrink_nodes(ret);
        sum_totals(ret);
        error = pk_framenames_copy_ranked(&of->table->names, of->ranks, &ret->names);
    }
    free(path);
    free(of->ranks);
    free(of->order);
    if (error != 0) {
        pk_stacktree_deinit(ret);
    }
    return error;
}

static uint64_t *make_counts(const pk_stacktable *table)
{
    return calloc(table->stack_count + 1UL, sizeof(uint64_t));
}

int pk_stacktree_build(const pk_stacktable *table, pk_stacktree *ret)
{
    *ret = (pk_stacktree){.side_count = 1, .weights = {table->duration_ns}, .is_by_time = true};
    uint64_t *counts = make_counts(table);
    if (counts == NULL) {
        return ENOMEM;
    }
    pk_stacktable_gather(table, counts);
    material of = {.table = table, .counts = {counts}};
    int error = build(&of, ret);
    free(counts);
    return error;
}

/* Writes the counts of another table's stacks, in the order of this one's. */
static void gather_other(const pk_stacktable *table, const pk_stacktable *other, uint64_t *ret)
{
    for (uint32_t i = 0; i < other->stack_count; i++) {
        uint32_t number;
        if (pk_stacktable_find(table, other->stacks[i].id, &number)) {
            ret[number] = pk_stacktable_seen(other, i);
        }
    }
}

int pk_stacktree_compare(const pk_stacktable *later, const pk_stacktable *earlier,
                         bool is_by_time, pk_stacktree *ret)
{
    *ret = (pk_stacktree){.side_count = 2, .is_by_time = is_by_time};
    ret->weights[0] = is_by_time ? later->duration_ns : later->total;
    ret->weights[1] = is_by_time ? earlier->duration_ns : earlier->total;
    pk_stacktable both;
    int error = pk_stacktable_copy(later, &both);
    if (error != 0) {
        return error;
    }
    error = pk_stacktable_learn(&both, earlier);
    uint64_t *counts = make_counts(&both);
    uint64_t *earlier_counts = make_counts(&both);
    if (counts == NULL || earlier_counts == NULL) {
        error = ENOMEM;
    }
    if (error == 0) {
        pk_stacktable_gather(&both, counts);
        gather_other(&both, earlier, earlier_counts);
        material of = {.table = &both, .counts = {counts, earlier_counts}};
        error = build(&of, ret);
    }
    free(counts);
    free(earlier_counts);
    pk_stacktable_deinit(&both);
    return error;
}

static double to_rate(const pk_stacktree *tree, int side, uint32_t node)
{
    double weight = (double)tree->weights[side] / (tree->is_by_time ? NS_PER_S : 1);
    return weight > 0 ? (double)tree->totals[side][node] / weight : 0;
}

double pk_stacktree_change(const pk_stacktree *tree, uint32_t node)
{
    return to_rate(tree, 0, node) - to_rate(tree, 1, node);
}

/* Whether a node is kept: it has the share on either side. */
static bool is_kept(const pk_stacktree *tree, uint32_t node, double ratio_min)
{
    bool is_much = false;
    for (int side = 0; side < tree->side_count; side++) {
        double whole = (double)tree->totals[side][0];
        double part = (double)tree->totals[side][node];
        is_much |= part > 0 && part >= ratio_min * whole;
    }
    return is_much && tree->frames[node] != PK_FRAME_OTHER;
}

/* What becomes of nodes while a tree is pruned. */
typedef struct {
    uint32_t *places; /* of kept nodes, by their old number */
    uint32_t *others; /* the node of all that is too little, by its parent's place; 0: none yet */
} pruning;

static const uint32_t NO_PLACE = UINT32_MAX;

static uint32_t add_node(pk_stacktree *ret, uint32_t parent, uint32_t frame)
{
    uint32_t place = ret->node_count++;
    ret->parents[place] = parent;
    ret->frames[place] = frame;
    return place;
}

static void prune_nodes(const pk_stacktree *tree, double ratio_min, const pruning *by,
                        pk_stacktree *ret)
{
    by->places[0] = add_node(ret, 0, PK_FRAME_ROOT);
    for (uint32_t node = 1; node < tree->node_count; node++) {
        uint32_t parent = by->places[tree->parents[node]];
        by->places[node] = NO_PLACE;
        if (parent == NO_PLACE) {
            continue; /* in the total of the one above it that was the first to go */
        }
        if (is_kept(tree, node, ratio_min)) {
            by->places[node] = add_node(ret, parent, tree->frames[node]);
            continue;
        }
        if (by->others[parent] == 0) {
            by->others[parent] = add_node(ret, parent, PK_FRAME_OTHER);
        }
        for (int side = 0; side < tree->side_count; side++) {
            ret->selfs[side][by->others[parent]] += tree->totals[side][node];
        }
    }
    for (uint32_t node = 0; node < tree->node_count; node++) {
        for (int side = 0; by->places[node] != NO_PLACE && side < tree->side_count; side++) {
            ret->selfs[side][by->places[node]] = tree->selfs[side][node];
        }
    }
}

int pk_stacktree_prune(const pk_stacktree *tree, double ratio_min, pk_stacktree *ret)
{
    *ret = (pk_stacktree){.side_count = tree->side_count, .is_by_time = tree->is_by_time};
    memcpy(ret->weights, tree->weights, sizeof ret->weights);
    pruning by = {
        .places = malloc(tree->node_count * sizeof *by.places),
        .others = calloc(tree->node_count, sizeof *by.others),
    };
    int error = by.places == NULL || by.others == NULL ? ENOMEM : 0;
    if (error == 0) {
        error = allocate_nodes(ret, tree->node_count);
    }
    if (error == 0) {
        prune_nodes(tree, ratio_min, &by, ret);
        shrink_nodes(ret);
        sum_totals(ret);
        error = pk_framenames_copy_texts(&tree->names, &ret->names);
    }
    free(by.places);
    free(by.others);
    if (error != 0) {
        pk_stacktree_deinit(ret);
    }
    return error;
}

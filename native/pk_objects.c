#include "pk_objects.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PLACE_BYTES = 96,
    SYSCALL_OPENAT2 = 437, /* headers may be older than the kernel (5.6) */
    RESOLVE_NO_MAGIC_LINKS = 0x02,
    RESOLVE_IN_THE_ROOT = 0x10,
};

int pk_objects_init(pk_objects *objects, int proc)
{
    *objects = (pk_objects){.proc = proc};
    objects->objects = calloc(PK_OBJECT_LIMIT, sizeof *objects->objects);
    return objects->objects == NULL ? ENOMEM : 0;
}

static void close_object(pk_object *object)
{
    if (object->source.serial != 0 && object->source.descriptor >= 0) {
        close(object->source.descriptor);
    }
    free(object->path);
    memset(object, 0, sizeof *object);
}

void pk_objects_deinit(pk_objects *objects)
{
    for (size_t i = 0; objects->objects != NULL && i < PK_OBJECT_LIMIT; i++) {
        close_object(&objects->objects[i]);
    }
    free(objects->objects);
    objects->objects = NULL;
}

static int64_t to_changed_ns(const struct stat *status)
{
    return status->st_ctim.tv_sec * 1000000000LL + status->st_ctim.tv_nsec;
}

/* A place opened without effect (O_PATH) becomes a file to be read, if it is a regular one. */
static int open_regular(int place, const pk_mapping *mapping, bool must_match)
{
    struct stat status;
    char own[PLACE_BYTES];
    int descriptor = -1;
    if (place < 0) {
        return -1;
    }
    if (fstat(place, &status) == 0 && S_ISREG(status.st_mode) &&
        (!must_match || status.st_ino == mapping->inode)) {
        (void)snprintf(own, sizeof own, "/proc/self/fd/%d", place);
        descriptor = open(own, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    }
    close(place);
    return descriptor;
}

/* Opens a path as if the process's root were ours. */
static int open_in_root(const pk_objects *objects, pid_t pid, const char *path)
{
    char root[PLACE_BYTES];
    (void)snprintf(root, sizeof root, "%d/root", (int)pid);
    int top = openat(objects->proc, root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (top < 0) {
        return -1;
    }
    const uint64_t how[] = {O_PATH | O_CLOEXEC, 0, RESOLVE_NO_MAGIC_LINKS | RESOLVE_IN_THE_ROOT};
    int place = (int)syscall(SYSCALL_OPENAT2, top, path, how, sizeof how);
    if (place < 0 && errno == ENOSYS && path[0] == '/') {
        place = openat(top, path + 1, O_PATH | O_CLOEXEC); /* kernels before 5.6 */
    }
    close(top);
    return place;
}

/* What a search in the text of mappings is for, and what it finds. */
typedef struct {
    uint64_t address;
    pk_mapping found;
    char *path;
} search;

static bool match_line(void *context, const char *line, size_t size)
{
    search *wanted = context;
    pk_mapping mapping;
    const char *path;
    size_t path_bytes;
    bool is_executable;
    if (pk_maps_parse_line(line, size, &mapping, &path, &path_bytes, &is_executable) != 0 ||
        wanted->address < mapping.start || wanted->address >= mapping.end) {
        return true;
    }
    wanted->found = mapping;
    path_bytes = path_bytes < PK_OBJECT_PATH_BYTES_MAX ? path_bytes : PK_OBJECT_PATH_BYTES_MAX;
    wanted->path = strndup(path, path_bytes);
    return false;
}

/* Opens the mapped file by the mapping itself, the program's own link, or its path. */
static int open_mapped(const pk_objects *objects, pid_t pid, const pk_mapping *mapping,
                       const search *text)
{
    char place[PLACE_BYTES];
    (void)snprintf(place, sizeof place, "%d/map_files/%llx-%llx", (int)pid,
                   (unsigned long long)text->found.start, (unsigned long long)text->found.end);
    int descriptor =
        open_regular(openat(objects->proc, place, O_PATH | O_CLOEXEC), mapping, false);
    if (descriptor < 0) {
        (void)snprintf(place, sizeof place, "%d/exe", (int)pid);
        descriptor = open_regular(openat(objects->proc, place, O_PATH | O_CLOEXEC), mapping, true);
    }
    if (descriptor < 0) {
        descriptor = open_regular(open_in_root(objects, pid, text->path), mapping, true);
    }
    return descriptor;
}

static uint32_t choose_place(pk_objects *objects)
{
    uint32_t chosen = 0;
    for (uint32_t i = 0; i < PK_OBJECT_LIMIT; i++) {
        if (objects->objects[i].source.serial == 0) {
            return i;
        }
        if (objects->objects[i].used < objects->objects[chosen].used) {
            chosen = i;
        }
    }
    objects->evicted_count++;
    close_object(&objects->objects[chosen]);
    return chosen;
}

int pk_objects_add(pk_objects *objects, pk_blocks *blocks, const pk_source *source,
                   const pk_mapping *mapping, const char *path, uint32_t *ret)
{
    pk_object made = {.device = mapping->device,
                      .inode = mapping->inode,
                      .used = ++objects->use_count,
                      .source = *source};
    int error = objects->last_serial == UINT32_MAX ? ENOSPC : 0;
    struct stat status;
    if (error == 0 && source->descriptor >= 0) {
        error = fstat(source->descriptor, &status) == 0 ? 0 : errno;
    }
    if (error == 0) {
        made.source.serial = ++objects->last_serial;
        if (source->descriptor >= 0) {
            made.changed_ns = to_changed_ns(&status);
            made.source.size_bytes = (uint64_t)status.st_size;
        }
        error = pk_elf_read(&made.elf, blocks, &made.source);
    }
    made.path = error == 0 ? strdup(path) : NULL;
    if (error == 0 && made.path == NULL) {
        error = ENOMEM;
    }
    if (error != 0) {
        if (source->descriptor >= 0) {
            close(source->descriptor);
        }
        return error;
    }
    *ret = choose_place(objects);
    objects->objects[*ret] = made;
    return 0;
}

/* Every process of this kernel has the same code there as we have. */
static int open_vdso(pk_objects *objects, pk_blocks *blocks, const pk_mapping *mapping,
                     uint32_t *ret)
{
    const uint8_t *image = (const uint8_t *)(uintptr_t)getauxval(AT_SYSINFO_EHDR);
    if (image == NULL || mapping->end - mapping->start > 1 << 20) {
        return ENOENT;
    }
    Elf64_Ehdr header;
    memcpy(&header, image, sizeof header);
    /* Its section headers come last, and tell how long it is. */
    uint64_t size_bytes = header.e_shoff + (uint64_t)header.e_shnum * header.e_shentsize;
    if (size_bytes > mapping->end - mapping->start) {
        size_bytes = mapping->end - mapping->start;
    }
    pk_source source = {.descriptor = -1, .size_bytes = size_bytes, .image = image};
    return pk_objects_add(objects, blocks, &source, mapping, "[vdso]", ret);
}

static int open_file(pk_objects *objects, pk_blocks *blocks, pid_t pid, const pk_mapping *mapping,
                     uint32_t *ret)
{
    char place[PLACE_BYTES];
    search text = {.address = mapping->start, .path = NULL};
    (void)snprintf(place, sizeof place, "%d/maps", (int)pid);
    int maps = openat(objects->proc, place, O_RDONLY | O_CLOEXEC);
    if (maps < 0) {
        return errno;
    }
    int error = pk_maps_visit(maps, match_line, &text);
    close(maps);
    if (error == 0 && (text.path == NULL || text.found.inode != mapping->inode ||
                       text.found.device != mapping->device)) {
        error = ENOENT; /* it has been replaced meanwhile */
    }
    pk_source source = {.descriptor = -1};
    if (error == 0) {
        source.descriptor = open_mapped(objects, pid, mapping, &text);
        error = source.descriptor < 0 ? ENOENT : 0;
    }
    if (error == 0) {
        error = pk_objects_add(objects, blocks, &source, mapping, text.path, ret);
    }
    free(text.path);
    return error;
}

/* An object that is open already, and whose file is still what it was. */
static bool find_open(pk_objects *objects, const pk_mapping *mapping, uint32_t *ret)
{
    for (uint32_t i = 0; i < PK_OBJECT_LIMIT; i++) {
        pk_object *object = &objects->objects[i];
        if (object->source.serial == 0 || object->inode != mapping->inode ||
            object->device != mapping->device) {
            continue;
        }
        struct stat status;
        if (object->source.descriptor >= 0 &&
            (fstat(object->source.descriptor, &status) != 0 ||
             to_changed_ns(&status) != object->changed_ns)) {
            close_object(object);
            continue;
        }
        *ret = i;
        return true;
    }
    return false;
}

const pk_object *pk_objects_find(pk_objects *objects, pk_blocks *blocks, pid_t pid,
                                 pk_mapping *mapping)
{
    if (mapping->state == PK_MAPPING_OPEN) {
        pk_object *object = &objects->objects[mapping->object];
        if (object->source.serial == mapping->serial) {
            object->used = ++objects->use_count;
            return object;
        }
    }
    if (mapping->state == PK_MAPPING_UNREADABLE || mapping->kind == PK_MAPPING_ANONYMOUS) {
        return NULL;
    }
    uint32_t index;
    int error = 0;
    if (!find_open(objects, mapping, &index)) {
        error = mapping->kind == PK_MAPPING_VDSO
                    ? open_vdso(objects, blocks, mapping, &index)
                    : open_file(objects, blocks, pid, mapping, &index);
    }
    const pk_object *object = error == 0 ? &objects->objects[index] : NULL;
    if (object == NULL || !pk_elf_find_bias(&object->elf, mapping->offset,
                                            mapping->end - mapping->start, &mapping->bias)) {
        mapping->state = PK_MAPPING_UNREADABLE;
        objects->refused_count++;
        return NULL;
    }
    mapping->state = PK_MAPPING_OPEN;
    mapping->object = index;
    mapping->serial = object->source.serial;
    return object;
}

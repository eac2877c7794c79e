/* What stack unwinding needs to know of an ELF file of x86-64: where its code lies, where its call
 * frame tables lie, and its build-id. The file is hostile: every offset is checked.
 * Functions return 0 or an errno value; EBADMSG: no such file, or damaged. */
#ifndef PK_ELF_H
#define PK_ELF_H
#include "pk_blocks.h"

enum {
    PK_SEGMENT_LIMIT = 32,
    PK_BUILD_ID_BYTES = 32, /* longer ones are cut */
};

/* A part of the file that is loaded; addresses are the file's own, before it is moved. */
typedef struct {
    uint64_t offset;
    uint64_t address;
    uint64_t size_bytes; /* in the file */
    bool is_executable;
} pk_segment;

typedef struct {
    pk_segment segments[PK_SEGMENT_LIMIT];
    size_t segment_count;
    uint64_t index_offset; /* of .eh_frame_hdr's sorted table */
    uint64_t index_count;  /* 0 = none */
    uint64_t index_base;   /* the address that its rows count from */
    uint64_t frames_offset; /* of .eh_frame */
    uint64_t frames_address;
    uint64_t frames_bytes;  /* 0 = none; may reach beyond its end, up to the segment's */
    uint8_t build_id[PK_BUILD_ID_BYTES];
    size_t build_id_bytes; /* 0 = none */
} pk_elf;

int pk_elf_read(pk_elf *elf, pk_blocks *blocks, const pk_source *source);

/* Whether the file has that address, and where. */
bool pk_elf_to_offset(const pk_elf *elf, uint64_t address, uint64_t *ret);

/* What to add to a file offset for the address of code that a mapping of
 * [offset, offset + size) holds. */
bool pk_elf_find_bias(const pk_elf *elf, uint64_t offset, uint64_t size_bytes, uint64_t *ret);

#endif

/* Reads of another process's memory without stopping it. What it holds is hostile: addresses are
 * checked before they are asked for, and nothing that was read is believed here.
 * Functions return 0 or an errno value. ESRCH: it is gone. EPERM: refused. */
#ifndef PK_REMOTE_H
#define PK_REMOTE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { PK_REMOTE_PIECE_LIMIT = 128 };

/* Pieces to be read at once, each of the same size, one behind the other into one buffer. */
typedef struct {
    struct iovec pieces[PK_REMOTE_PIECE_LIMIT];
    size_t count;
} pk_gather;

/* Whether an object of `size` bytes may lie there in a 64-bit process, aligned to 8 bytes. */
bool pk_remote_is_address(uint64_t address, size_t size);

/* Reads the whole range, or fails. */
int pk_remote_read(pid_t pid, uint64_t address, void *buffer, size_t size);

/* Adds a piece. False: no room, or no address. */
bool pk_gather_add(pk_gather *gather, uint64_t address, size_t size);

/* Reads all pieces. *ret: how many bytes came; the pieces behind them could not be read. */
int pk_gather_read(const pk_gather *gather, pid_t pid, void *buffer, size_t size, size_t *ret);

/* A word, or the lowest byte, at an offset of a buffer. */
uint64_t pk_remote_word(const void *buffer, size_t offset);

#endif

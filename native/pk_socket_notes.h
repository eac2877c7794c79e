/* Writes down what a recorder finds out: who a socket is, what was read of it, that it is gone. */
#ifndef PK_SOCKET_NOTES_H
#define PK_SOCKET_NOTES_H
#include "pk_socket_recorder.h"

void pk_socket_tell_identity(struct pk_socket_recorder *recorder, struct pk_socket_entry *entry);

/* The inode is 0 until the service accepts the connection; its identity waits for that. */
void pk_socket_note_inode(struct pk_socket_recorder *recorder, struct pk_socket_entry *entry,
                          int64_t inode);

/* Enters what was read of a socket at the recorder's now_ns. */
void pk_socket_note_fact(struct pk_socket_recorder *recorder, struct pk_socket_entry *entry,
                         const struct pk_socket_fact *fact);

/* The socket was missed; it is kept for a while, as the kernel may yet tell how it ended. */
void pk_socket_mark_gone(struct pk_socket_recorder *recorder, struct pk_socket_entry *entry);

/* Writes what is still held back of a socket and takes it out of the table. */
void pk_socket_forget(struct pk_socket_recorder *recorder, struct pk_socket_entry *entry);

uint32_t pk_socket_known_count(const struct pk_socket_recorder *recorder);

/* Writes that so many sockets were read at now_ns. */
void pk_socket_tell_poll(struct pk_socket_recorder *recorder, uint32_t polled_count,
                         int64_t cpu_ns);

#endif

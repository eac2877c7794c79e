/* What a row says of a socket, and when a new row is due. */
#ifndef PK_SOCKET_IDENTITY_H
#define PK_SOCKET_IDENTITY_H
#include "pk_socket_batch.h"
#include "pk_socket_table.h"

/* Writes role, family and addresses into an identity row, or the front of a closed one. */
void pk_socket_write_identity(int64_t *ret, const struct pk_socket_key *key,
                              enum pk_socket_role role);

/* Whether two polls of a socket belong to one row of socket_runs. */
bool pk_socket_is_same_run(const struct pk_socket_fact *open, const struct pk_socket_fact *now);

#endif

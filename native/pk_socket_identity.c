#include "pk_socket_identity.h"

#include <sys/socket.h>

static int64_t read_half(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (size_t index = 0; index < 8; index++) {
        value = value << 8 | bytes[index];
    }
    return (int64_t)value;
}

void pk_socket_write_identity(int64_t *ret, const struct pk_socket_key *key,
                              enum pk_socket_role role)
{
    ret[PK_IDENTITY_ROLE] = role;
    ret[PK_IDENTITY_FAMILY] = key->family == AF_INET ? 4 : 6;
    ret[PK_IDENTITY_LOCAL_HIGH] = read_half(key->local);
    ret[PK_IDENTITY_LOCAL_LOW] = read_half(key->local + 8);
    ret[PK_IDENTITY_LOCAL_PORT] = key->local_port;
    ret[PK_IDENTITY_PEER_HIGH] = read_half(key->peer);
    ret[PK_IDENTITY_PEER_LOW] = read_half(key->peer + 8);
    ret[PK_IDENTITY_PEER_PORT] = key->peer_port;
}

bool pk_socket_is_same_run(const struct pk_socket_fact *open, const struct pk_socket_fact *now)
{
    static const uint8_t WATCHED[] = {
        PK_SOCKET_RECEIVE_QUEUE_BYTES, PK_SOCKET_SEND_QUEUE_BYTES,   PK_SOCKET_BYTES_SENT,
        PK_SOCKET_BYTES_RECEIVED,      PK_SOCKET_DATA_SEGMENTS_OUT, PK_SOCKET_DATA_SEGMENTS_IN,
        PK_SOCKET_RETRANSMITS,         PK_SOCKET_OUT_OF_ORDER,
    };
    if (open->state != now->state) {
        return false;
    }
    for (size_t index = 0; index < sizeof WATCHED; index++) {
        if (open->counters[WATCHED[index]] != now->counters[WATCHED[index]]) {
            return false;
        }
    }
    return true;
}

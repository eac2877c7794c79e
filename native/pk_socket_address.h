/* An address and port as people write them: "10.0.0.1:80", "[::1]:80". */
#ifndef PK_SOCKET_ADDRESS_H
#define PK_SOCKET_ADDRESS_H
#include <stdint.h>

enum { PK_SOCKET_ADDRESS_BYTES = 64 };

/* Writes the text, NUL-terminated, to ret, of PK_SOCKET_ADDRESS_BYTES bytes. The halves are those
 * of a 16-byte address, most significant byte first; v4-mapped ones are written as IPv4. */
void pk_socket_address_write(int64_t high, int64_t low, int64_t port, char *ret);

#endif

#include "pk_socket_address.h"

#include <arpa/inet.h>
#include <stdio.h>

void pk_socket_address_write(int64_t high, int64_t low, int64_t port, char *ret)
{
    uint8_t bytes[16];
    for (int index = 0; index < 8; index++) {
        bytes[index] = (uint8_t)((uint64_t)high >> (56 - 8 * index));
        bytes[8 + index] = (uint8_t)((uint64_t)low >> (56 - 8 * index));
    }
    const int is_v4 = high == 0 && (uint64_t)low >> 32 == 0xffff;
    char text[INET6_ADDRSTRLEN] = "";
    inet_ntop(is_v4 ? AF_INET : AF_INET6, is_v4 ? bytes + 12 : bytes, text, sizeof text);
    snprintf(ret, PK_SOCKET_ADDRESS_BYTES, is_v4 ? "%s:%d" : "[%s]:%d", text, (int)port & 0xffff);
}

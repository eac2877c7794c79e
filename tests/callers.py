"""Programs that open a connection for each call, and what they call."""

# Arguments: a port, and how many threads call it all the time.
CALLER = """
import socket, sys, threading
port, count = int(sys.argv[1]), int(sys.argv[2])

def call():
    while True:
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.sendall(b"question")
            peer.recv(100)

for _ in range(count):
    threading.Thread(target=call, daemon=True).start()
print("started", flush=True)
sys.stdin.readline()
"""
# Tells its port; answers after 60 ms.
UPSTREAM = """
import socket, sys, threading, time
server = socket.create_server(("127.0.0.1", 0), backlog=128)
print(server.getsockname()[1], flush=True)

def serve(client):
    with client:
        client.recv(100)
        time.sleep(0.06)
        client.sendall(b"answer")

while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""

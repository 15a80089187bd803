# A character device that answers like a TPM: a raw pseudo-terminal whose other end passes commands on to an swtpm.
# Prints the device's path. Arguments: the swtpm's socket, and a file whose presence makes the device mute.
import os, pty, socket, struct, sys, time, tty

master, slave = pty.openpty()
tty.setraw(slave)
tty.setraw(master)
print(os.ttyname(slave), flush=True)


def read(source, size):
    data = b''
    while len(data) < size:
        part = source(size - len(data))
        if not part:
            sys.exit()
        data += part
    return data


def message(source):
    head = read(source, 10)
    return head + read(source, struct.unpack('>I', head[2:6])[0] - 10)


while True:
    command = message(lambda size: os.read(master, size))
    if os.path.exists(sys.argv[2]):
        continue
    with socket.socket(socket.AF_UNIX) as tpm:
        tpm.connect(sys.argv[1])
        tpm.sendall(command)
        response = message(tpm.recv)
    while response:
        response = response[os.write(master, response):]

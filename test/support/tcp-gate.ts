import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'

/** Stands between a client and a server on loopback, and can be shut: open connections break, new ones are cut off. */
export class TcpGate implements AsyncDisposable {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  #target: number
  #isOpen = true
  #isSilent = false
  /** Connections that were let through. */
  passed = 0

  private constructor(server: Server, target: number) {
    this.#server = server
    this.#target = target
  }

  static async to(port: number): Promise<TcpGate> {
    const server = createServer()
    const gate = new TcpGate(server, port)
    server.on('connection', (socket) => gate.#admit(socket))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return gate
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  /** Where new connections go from now on: the server was started again, on another port. */
  redirect(port: number): void {
    this.#target = port
  }

  /** The server is away: everything is cut off. */
  shut(): void {
    this.#isOpen = false
    for (const socket of this.#sockets) socket.destroy()
  }

  open(): void {
    this.#isOpen = true
    this.#isSilent = false
  }

  /** Connections stay, and nothing comes through any more. */
  silence(): void {
    this.#isSilent = true
    for (const socket of this.#sockets) {
      socket.unpipe()
      socket.pause()
    }
  }

  #admit(socket: Socket): void {
    socket.on('error', () => {})
    if (!this.#isOpen) {
      socket.destroy()
      return
    }
    this.passed += 1
    const onward = connect(this.#target, '127.0.0.1')
    onward.on('error', () => {})
    for (const [one, other] of [
      [socket, onward],
      [onward, socket],
    ] as const) {
      this.#sockets.add(one)
      one.once('close', () => {
        this.#sockets.delete(one)
        other.destroy()
      })
      if (!this.#isSilent) one.pipe(other)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}

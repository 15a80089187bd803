/**
 * assay-signer: the one process that loads the PKCS#11 module and knows the PIN. The server starts it, with a
 * socket as descriptor 3, and it ends when that socket does. What the module prints goes to the log, since
 * descriptors 1 and 2 are no part of the protocol.
 *
 * It must not dump core, which Node cannot arrange itself: the unit says `LimitCORE=0`. Built to plain JavaScript it
 * runs with `--jitless`, and so under `MemoryDenyWriteExecute=`.
 */
import { Socket } from 'node:net'
import { SystemClock } from '#base/clock.ts'
import { SystemRandom } from '#base/random.ts'
import { FrameReader, FrameWriter } from '../frame.ts'
import { Signer } from './signer.ts'

const finalizeLimit = Temporal.Duration.from({ seconds: 1 })

// The server hears these too, finishes its work and closes the socket.
process.on('SIGINT', () => undefined)
process.on('SIGTERM', () => undefined)

const clock = new SystemClock()
const stop = new AbortController()
const server = new Socket({ fd: 3, readable: true, writable: true })
const reader = new FrameReader()
const writer = new FrameWriter((bytes) => server.write(bytes))
const signer = new Signer({
  clock,
  random: new SystemRandom(),
  signal: stop.signal,
  send: (kind, id, body) => writer.send(kind, id, body),
  onEnd: () => queueMicrotask(() => server.end()),
})

/**
 * Modules hang or crash in their exit handlers often enough; once C_Finalize has returned, or will not,
 * nothing is gained by running them.
 */
async function end(): Promise<never> {
  stop.abort()
  const finalized = signer.close().catch(() => undefined)
  await Promise.race([finalized, clock.sleep(finalizeLimit, new AbortController().signal)])
  process.kill(process.pid, 'SIGKILL')
  return new Promise(() => undefined)
}

server.on('data', (chunk: Uint8Array) => {
  try {
    for (const frame of reader.read(chunk)) void signer.receive(frame)
  } catch (error) {
    server.destroy(error as Error)
  }
})
server.on('error', () => undefined) // 'close' follows
server.on('close', () => void end())

import { Socket } from 'node:net'
import { SystemClock } from '#base/clock.ts'
import { SystemRandom } from '#base/random.ts'
import { forbidCoreDumps } from '#host/core-dumps.ts'
import { endWithPeer } from '#host/end-with-peer.ts'
import { FrameReader, FrameWriter } from '../frame.ts'
import { type PermitToken, Signer } from './signer.ts'

/** SD_LISTEN_FDS_START, and where a server puts its end of the pair. */
const serverFd = 3

const finalizeLimit = Temporal.Duration.from({ seconds: 1 })
/** Longer than an end in order takes. */
const hangLimitMs = 2000

/**
 * Serves the one server at descriptor 3, and ends the process when that goes, whatever the module is doing then.
 *
 * Built to plain JavaScript it runs with `--jitless`, and so under `MemoryDenyWriteExecute=`.
 */
export function serveSigner(permit: PermitToken): void {
  forbidCoreDumps()
  endWithPeer(serverFd, hangLimitMs)
  const clock = new SystemClock()
  const stop = new AbortController()
  const server = new Socket({ fd: serverFd, readable: true, writable: true })
  const reader = new FrameReader()
  const writer = new FrameWriter((bytes) => server.write(bytes))
  const signer = new Signer({
    clock,
    random: new SystemRandom(),
    signal: stop.signal,
    send: (kind, id, body) => writer.send(kind, id, body),
    permit,
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
}

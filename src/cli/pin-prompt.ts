import { openSync } from 'node:fs'
import { mkdtemp, open, rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { ReadStream } from 'node:tty'
import { AssayError } from '#base/errors.ts'
import type { CommandContext } from './command.ts'

/** The PIN of a token in a file that is wiped and removed when this is disposed of. */
export interface PinFile extends AsyncDisposable {
  readonly path: string
}

/** File systems that are in memory only, tmpfs and ramfs (statfs(2)). */
const memoryFileSystems: ReadonlySet<number> = new Set([0x01021994, 0x858458f6])
const maxPinBytes = 255
const keys = {
  interrupt: 0x03,
  endOfInput: 0x04,
  backspace: 0x08,
  newline: 0x0a,
  enter: 0x0d,
  delete: 0x7f,
}

/**
 * Asks on the terminal for the PIN of a token, and does not show it. It goes into a file in memory that the signer
 * reads, and that is there only until the token is open.
 *
 * @returns undefined when the command has no terminal.
 * @throws AssayError when there is no file system in memory, or nothing was typed; the signal's reason.
 */
export async function askPin(
  token: string,
  { environment, signal }: Pick<CommandContext, 'environment' | 'signal'>,
): Promise<PinFile | undefined> {
  const terminal = openTerminal()
  if (terminal === undefined) return undefined
  const directory = await memoryDirectory(environment)
  const pin = await readHidden(terminal, { prompt: `PIN of ${token}: `, signal })
  try {
    return await writePin(pin, directory)
  } finally {
    pin.fill(0)
  }
}

async function writePin(pin: Uint8Array, directory: string): Promise<PinFile> {
  const folder = await mkdtemp(join(directory, 'assay-pin-'))
  const path = join(folder, 'pin')
  await using file = await open(path, 'wx', 0o600)
  await file.writeFile(pin)
  const zeros = new Uint8Array(pin.length)
  return {
    path,
    async [Symbol.asyncDispose]() {
      await using used = await open(path, 'r+')
      await used.write(zeros, 0, zeros.length, 0)
      await rm(folder, { recursive: true, force: true })
    },
  }
}

function openTerminal(): ReadStream | undefined {
  try {
    return new ReadStream(openSync('/dev/tty', 'r+'))
  } catch {
    return undefined // the process has no controlling terminal
  }
}

async function memoryDirectory(environment: CommandContext['environment']): Promise<string> {
  for (const directory of [environment['XDG_RUNTIME_DIR'], '/dev/shm']) {
    if (directory === undefined) continue
    try {
      if (memoryFileSystems.has((await statfs(directory)).type)) return directory
    } catch {
      // Then another one.
    }
  }
  throw new AssayError(
    'failed-precondition',
    'cannot ask for the PIN: there is no file system in memory to hand it over in (/dev/shm); use pin_file',
    { reason: 'ceremony-pin' },
  )
}

async function readHidden(
  terminal: ReadStream,
  of: { readonly prompt: string } & Pick<CommandContext, 'signal'>,
): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>()
  const typed = new Uint8Array(maxPinBytes)
  let length = 0
  const onAbort = (): void => reject(of.signal.reason)
  of.signal.throwIfAborted()
  of.signal.addEventListener('abort', onAbort, { once: true })
  terminal.setRawMode(true)
  writeTo(terminal, of.prompt)
  terminal.on('data', (chunk: Uint8Array) => {
    for (const byte of chunk) {
      if (byte === keys.interrupt) reject(new AssayError('failed-precondition', 'interrupted'))
      else if (byte === keys.enter || byte === keys.newline || byte === keys.endOfInput) {
        resolve(typed.slice(0, length))
      } else if (byte === keys.delete || byte === keys.backspace) length = Math.max(0, length - 1)
      else if (length < maxPinBytes) typed[length++] = byte
    }
    chunk.fill(0)
  })
  try {
    const pin = await promise
    if (pin.length > 0) return pin
    throw new AssayError('failed-precondition', 'no PIN was typed', { reason: 'ceremony-pin' })
  } finally {
    typed.fill(0)
    of.signal.removeEventListener('abort', onAbort)
    terminal.setRawMode(false)
    writeTo(terminal, '\n')
    terminal.destroy()
  }
}

function writeTo(terminal: ReadStream, text: string): void {
  terminal.write(text)
}

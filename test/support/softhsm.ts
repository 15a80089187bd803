import { execFile } from 'node:child_process'
import { cp, mkdtemp, readFile, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)
const script = fileURLToPath(new URL('../../scripts/software-hsm', import.meta.url))

/** Where Debian's softhsm2 puts the module. */
export const softHsmModule = '/usr/lib/softhsm/libsofthsm2.so'

/** A token in a directory of its own, which goes when this is disposed. */
export interface SoftHsm extends AsyncDisposable {
  readonly directory: string
  readonly module: string
  readonly tokenLabel: string
  readonly pinFile: string
  readonly pin: string
  /** What a process needs to find the token. */
  readonly environment: Readonly<Record<string, string>>
  /** Makes the token vanish, as pulling the plug would. */
  unplug(): Promise<void>
  /** Puts it back. */
  plug(): Promise<void>
  /** Puts a copy of another token in its place, with the other's PIN. */
  plugCopyOf(other: SoftHsm): Promise<void>
  /** Makes another token beside it. */
  addToken(label: string): Promise<void>
  /** Runs pkcs11-tool on the token, logged in; resolves with what it printed. */
  pkcs11Tool(...args: readonly string[]): Promise<string>
}

/** Makes a token with the label `assay`. */
export async function newSoftHsm(): Promise<SoftHsm> {
  const directory = await mkdtemp(join(tmpdir(), 'assay-softhsm-'))
  const tokenLabel = 'assay'
  await run(script, [directory, tokenLabel])
  const tokens = join(directory, 'tokens')
  const pinFile = join(directory, 'pin')
  const pin = await readFile(pinFile, 'utf8')
  const environment = { SOFTHSM2_CONF: join(directory, 'softhsm2.conf') }
  return {
    directory,
    module: softHsmModule,
    tokenLabel,
    pinFile,
    pin,
    environment,
    unplug: () => rename(tokens, `${tokens}.away`),
    plug: () => rename(`${tokens}.away`, tokens),
    async plugCopyOf(other) {
      await cp(join(other.directory, 'tokens'), tokens, { recursive: true })
      await rm(pinFile)
      await cp(other.pinFile, pinFile)
    },
    async addToken(label) {
      await run(script, [directory, label])
    },
    async pkcs11Tool(...args) {
      const login = [
        '--module',
        softHsmModule,
        '--token-label',
        tokenLabel,
        '--login',
        '--pin',
        pin,
      ]
      const { stdout } = await run('pkcs11-tool', [...login, ...args], { env: environment })
      return stdout
    },
    async [Symbol.asyncDispose]() {
      await rm(directory, { recursive: true, force: true })
    },
  }
}

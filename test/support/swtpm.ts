import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { concatBytes } from '#base/bytes.ts'
import { SystemClock } from '#base/clock.ts'
import { SystemRandom } from '#base/random.ts'
import { parsePem } from '#pki/pem.ts'
import {
  createEndorsementPrimary,
  type NvIndex,
  password,
  readNvPublic,
} from '#tpm/device/commands.ts'
import { entity, Tpm } from '#tpm/device/tpm.ts'
import { permanentHandle } from '#tpm/wire/constants.ts'
import { sized, u16, u32 } from '#tpm/wire/marshal.ts'
import type { PublicArea } from '#tpm/wire/public-area.ts'
import { type EndorsementKeyProfileName, endorsementKeyProfiles } from '#tpm/wire/templates.ts'

// Software TPMs for tests and for the demonstration: swtpm, manufactured by swtpm_setup with a certificate
// authority of its own. No root, no network.

const run = promisify(execFile)
const clock = new SystemClock()
const none = new Uint8Array(0)

/**
 * A TPM is a folder: `state`, which belongs to one process at a time; `ca`, the maker's root and issuing
 * certificate as PEM (a server's `endorsement_ca`); `sock`, where it listens while it runs.
 */
const parts = { state: 'state', authority: 'ca', socket: 'sock' } as const

/** How a TPM is made. */
export interface ManufactureOptions {
  /** Goes into the certificates' subject. */
  readonly name?: string
  /** A folder for the maker's keys, which several TPMs may share. Default: `maker` in the TPM's own. */
  readonly makerDirectory?: string
}

/** Profiles whose certificates swtpm_setup writes itself; the others are added here. */
const bySetup: ReadonlySet<EndorsementKeyProfileName> = new Set(['rsa-2048-low', 'ecc-p384-high'])

/**
 * Makes a TPM in `directory`, with an endorsement certificate for every profile Assay knows. Takes two seconds.
 * TPMs of one maker are made one after the other.
 */
export async function manufactureTpm(
  directory: string,
  { name = 'node-1', makerDirectory = join(directory, 'maker') }: ManufactureOptions = {},
): Promise<void> {
  for (const made of [
    join(directory, parts.state),
    join(directory, parts.authority),
    makerDirectory,
  ])
    await mkdir(made, { recursive: true })
  const config = await writeMakerConfig(makerDirectory)
  await run('swtpm_setup', [
    '--tpm2',
    ...['--tpmstate', join(directory, parts.state)],
    '--create-ek-cert',
    '--overwrite',
    ...['--config', config.setup],
    ...['--vmid', name],
  ])
  for (const file of ['issuercert.pem', 'swtpm-localca-rootca-cert.pem'])
    await cp(join(makerDirectory, file), join(directory, parts.authority, file))
  await using swtpm = await startSwtpm(directory)
  await using tpm = await Tpm.open(swtpm.tcti, { clock, random: new SystemRandom() })
  for (const profile of endorsementKeyProfiles) {
    if (bySetup.has(profile.name)) continue
    const certificate = await certify(await publicAreaOf(tpm, profile.template), {
      name,
      makerDirectory,
      config: config.maker,
    })
    await writeNv(tpm, profile.certificateIndex, certificate)
  }
}

/** A running software TPM. Disposing of it ends it and keeps its state. */
export interface Swtpm extends AsyncDisposable {
  /** The same after every start in the same folder. */
  readonly tcti: string
  readonly directory: string
  /** Sends a signal: SIGSTOP makes a TPM that never answers. */
  signal(signal: NodeJS.Signals): void
  /** Resolves once the process has ended. */
  readonly ended: Promise<void>
}

/** Longest path of a Unix socket, with `.ctrl` after it (sun_path of unix(7)). */
const maxSocketPath = 102

/** Powers a manufactured TPM up; a `temporary` one is removed when it is disposed of. */
export async function startSwtpm(
  directory: string,
  { temporary = false }: { readonly temporary?: boolean } = {},
): Promise<Swtpm> {
  const socket = join(directory, parts.socket)
  if (socket.length > maxSocketPath)
    throw new RangeError(`cannot start swtpm: ${socket} is longer than ${maxSocketPath} characters`)
  await Promise.all([socket, `${socket}.ctrl`].map((path) => rm(path, { force: true })))
  const child = spawn(
    'swtpm',
    [
      'socket',
      '--tpm2',
      ...['--tpmstate', `dir=${join(directory, parts.state)}`],
      ...['--server', `type=unixio,path=${socket}`],
      ...['--ctrl', `type=unixio,path=${socket}.ctrl`],
      ...['--flags', 'startup-clear'],
      ...['--log', `file=${join(directory, 'swtpm.log')}`],
    ],
    { stdio: 'ignore' },
  )
  const ended = once(child, 'exit').then(() => {})
  const killed = (): void => void child.kill('SIGKILL')
  process.once('exit', killed)
  const gone = ended.then(() => process.removeListener('exit', killed))
  while (!((await answers(socket)) && (await answers(`${socket}.ctrl`)))) {
    if (child.exitCode !== null) throw new Error(`swtpm ended with code ${child.exitCode}`)
    await clock.sleep(Temporal.Duration.from({ milliseconds: 2 }), new AbortController().signal)
  }
  return {
    tcti: `swtpm:path=${socket}`,
    directory,
    ended,
    signal: (signal) => void child.kill(signal),
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL') // after a SIGSTOP nothing else reaches it; the state is written at every change
      await gone
      if (temporary) await rm(directory, { recursive: true, force: true })
    },
  }
}

/** Names of the TPMs that are made once and copied; all are by one maker. */
export type TestTpmName = 'node-1' | 'node-2'

/**
 * A fresh copy of a TPM that was manufactured once into `.cache/swtpm`, powered up in some 20 ms. Disposing of it
 * ends it and removes it.
 */
export async function startTestTpm(name: TestTpmName = 'node-1'): Promise<Swtpm> {
  const directory = await mkdtemp(join(tmpdir(), 'assay-tpm-'))
  await copyTestTpm(directory, name)
  return await startSwtpm(directory, { temporary: true })
}

/** Copies a manufactured TPM, powered off, into `directory`. */
export async function copyTestTpm(directory: string, name: TestTpmName = 'node-1'): Promise<void> {
  await cp(join(await cachedTpms(), name), directory, { recursive: true })
}

/** The maker's certificates: DER, as a server's attestor takes them. */
export async function testTpmAuthorities(): Promise<Uint8Array[]> {
  const folder = join(await cachedTpms(), 'node-1', parts.authority)
  const files = (await readdir(folder)).map((file) => readFile(join(folder, file), 'utf8'))
  return (await Promise.all(files)).flatMap((text) => parsePem(text, 'CERTIFICATE'))
}

const cache = new URL('../../.cache/swtpm/2', import.meta.url).pathname

async function cachedTpms(): Promise<string> {
  if (!(await exists(cache))) {
    const fresh = await mkdtemp(join(tmpdir(), 'assay-swtpm-'))
    const makerDirectory = join(fresh, 'maker')
    for (const name of ['node-1', 'node-2'])
      await manufactureTpm(join(fresh, name), { name, makerDirectory })
    await publish(fresh)
  }
  return cache
}

/** Another test process may have been faster, and then its TPMs are as good. */
async function publish(fresh: string): Promise<void> {
  const beside = `${cache}.${process.pid}`
  await cp(fresh, beside, {
    recursive: true,
    filter: (path) => !/(sock|ctrl|log|lock)$/.test(path),
  })
  await rename(beside, cache).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error
  })
  await Promise.all([fresh, beside].map((path) => rm(path, { recursive: true, force: true })))
}

/** Whether somebody listens at a Unix socket: its file is there a little earlier. */
async function answers(path: string): Promise<boolean> {
  const connection = connect(path)
  try {
    await once(connection, 'connect')
    return true
  } catch {
    return false
  } finally {
    connection.destroy()
  }
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  )
}

async function writeMakerConfig(directory: string): Promise<{ maker: string; setup: string }> {
  const maker = join(directory, 'localca.conf')
  const options = join(directory, 'localca.options')
  const setup = join(directory, 'setup.conf')
  await writeFile(
    maker,
    [
      `statedir = ${directory}`,
      `signingkey = ${join(directory, 'signkey.pem')}`,
      `issuercert = ${join(directory, 'issuercert.pem')}`,
      `certserial = ${join(directory, 'certserial')}`,
    ].join('\n'),
  )
  await writeFile(
    options,
    '--platform-manufacturer Assay --platform-version 1 --platform-model test',
  )
  await writeFile(
    setup,
    [
      'create_certs_tool=/usr/bin/swtpm_localca',
      `create_certs_tool_config=${maker}`,
      `create_certs_tool_options=${options}`,
      'active_pcr_banks=sha256',
    ].join('\n'),
  )
  return { maker, setup }
}

/** The maker's certificate for an endorsement key: swtpm_setup has none for P-256 and high-range RSA. */
async function certify(
  area: PublicArea,
  maker: { readonly name: string; readonly makerDirectory: string; readonly config: string },
): Promise<Uint8Array> {
  const key =
    area.type === 'ecc'
      ? `x=${area.x.toHex()},y=${area.y.toHex()},id=secp256r1`
      : area.modulus.toHex()
  const directory = await mkdtemp(join(tmpdir(), 'assay-ek-'))
  await run('swtpm_localca', [
    ...['--type', 'ek'],
    ...['--ek', key],
    ...['--dir', directory],
    ...['--vmid', maker.name],
    '--tpm2',
    ...['--tpm-spec-family', '2.0'],
    ...['--tpm-spec-level', '0'],
    ...['--tpm-spec-revision', '164'],
    ...['--tpm-manufacturer', 'id:00001014'],
    ...['--tpm-model', 'swtpm'],
    ...['--tpm-version', 'id:20191023'],
    ...['--configfile', maker.config],
    ...['--optsfile', join(maker.makerDirectory, 'localca.options')],
  ])
  const certificate = new Uint8Array(await readFile(join(directory, 'ek.cert')))
  await rm(directory, { recursive: true, force: true })
  return certificate
}

/** TPMA_NV of a maker's certificate: written by the platform, readable by anybody, gone never. */
const certificateAttributes = 0x42072001
const nvChunkBytes = 512

async function writeNv(tpm: Tpm, index: number, content: Uint8Array): Promise<void> {
  const platform = entity(permanentHandle.platform)
  const publicArea = [
    u32(index),
    u16(0x0b),
    u32(certificateAttributes),
    sized(),
    u16(content.length),
  ]
  await tpm.execute({
    code: 0x12a,
    name: 'TPM2_NV_DefineSpace',
    handles: [platform],
    authorizations: [password()],
    parameters: concatBytes(sized(), sized(...publicArea)),
  })
  for (let at = 0; at < content.length; at += nvChunkBytes) {
    const nv: NvIndex = await readNvPublic(tpm, index) // its Name changes with the first write
    await tpm.execute({
      code: 0x137,
      name: 'TPM2_NV_Write',
      handles: [platform, nv],
      authorizations: [password()],
      parameters: concatBytes(sized(content.subarray(at, at + nvChunkBytes)), u16(at)),
    })
  }
}

async function publicAreaOf(tpm: Tpm, template: PublicArea): Promise<PublicArea> {
  await using key = await createEndorsementPrimary(tpm, template, none)
  return key.area
}

import { createPrivateKey } from 'node:crypto'
import { mkdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { utf8Bytes, utf8Text } from '#base/bytes.ts'
import { AssayError } from '#base/errors.ts'
import type { Random } from '#base/random.ts'
import { readSecretFile, writeSecretFile } from '#host/secret-file.ts'
import { type JsonObject, jsonMember, jsonObject, parseJson, stringMember } from '#pki/json.ts'
import { exportPkcs8 } from '#pki/private-key.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { encodeBundle, parseBundle } from '#spiffe/bundle-json.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import { type AgentIdentity, agentIdentity } from '../server-client/agent-identity.ts'

/**
 * What survives a restart, in files of `data_dir`: the bundle that the server is recognised by (`bundle.json`), and,
 * only for a node that cannot prove itself twice, the agent's key and SVID (`agent-identity.json`, mode 0600).
 */
export class AgentStorage {
  readonly #directory: string
  readonly #random: Random

  private constructor(directory: string, random: Random) {
    this.#directory = directory
    this.#random = random
  }

  /** Makes the directory, with mode 0700, when it is not there. */
  static async open(
    directory: string,
    { random }: { readonly random: Random },
  ): Promise<AgentStorage> {
    await mkdir(directory, { recursive: true, mode: 0o700 })
    return new AgentStorage(directory, random)
  }

  /** Undefined: none was kept. @throws SyntaxError when it is damaged. */
  async loadBundle(trustDomain: TrustDomain): Promise<Bundle | undefined> {
    try {
      return parseBundle(await readFile(this.#bundlePath), trustDomain)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw error
    }
  }

  async saveBundle(bundle: Bundle): Promise<void> {
    await this.#write(this.#bundlePath, encodeBundle(bundle))
  }

  /**
   * Undefined: none was kept.
   *
   * @throws AssayError `failed-precondition` when others can read it; SyntaxError when it is damaged.
   */
  async loadIdentity(): Promise<AgentIdentity | undefined> {
    let bytes: Uint8Array
    try {
      bytes = await readSecretFile(this.#identityPath)
    } catch (error) {
      if (error instanceof AssayError && error.code === 'not-found') return undefined
      throw error
    }
    return parseIdentity(utf8Text(bytes))
  }

  async saveIdentity(identity: AgentIdentity): Promise<void> {
    const stored = {
      svid: identity.certificates.map((certificate) => certificate.toBase64()),
      key: exportPkcs8(identity.key).toBase64(),
      can_reattest: identity.canReattest,
    }
    await this.#write(this.#identityPath, JSON.stringify(stored))
  }

  async deleteIdentity(): Promise<void> {
    await rm(this.#identityPath, { force: true })
  }

  get #bundlePath(): string {
    return join(this.#directory, 'bundle.json')
  }

  get #identityPath(): string {
    return join(this.#directory, 'agent-identity.json')
  }

  async #write(path: string, text: string): Promise<void> {
    await writeSecretFile(path, utf8Bytes(`${text}\n`), { random: this.#random })
  }
}

function parseIdentity(text: string): AgentIdentity {
  const stored = jsonObject(parseJson(text, { maxCharacters: 1024 * 1024 }), 'agent-identity.json')
  const key = Uint8Array.fromBase64(stringMember(stored, 'key') ?? '')
  return agentIdentity(certificatesOf(stored), {
    // biome-ignore lint/style/noRestrictedGlobals: node:crypto's types take DER as a Buffer only
    key: createPrivateKey({ key: key as Buffer, format: 'der', type: 'pkcs8' }),
    canReattest: jsonMember(stored, 'can_reattest') === true,
  })
}

function certificatesOf(stored: JsonObject): Uint8Array[] {
  const svid = jsonMember(stored, 'svid')
  if (!Array.isArray(svid)) throw new SyntaxError('agent-identity.json: "svid" is not a list')
  return svid.map((each: unknown) => Uint8Array.fromBase64(String(each)))
}

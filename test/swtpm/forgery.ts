import type { TpmRefusal } from '#attestation/tpm-refusals.ts'
import { AssayError } from '#base/errors.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import type { AttestedNode, NodeAttestor } from '#server/plugin/node-attestor/node-attestor.ts'
import type { TpmNodeAttestorOptions } from '#server/plugin/node-attestor/tpm.ts'
import type { TpmInventoryRecord } from '#server/plugin/node-attestor/tpm-inventory.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { identityOf } from '#tpm/verify/endorsement-key.ts'
import { maker } from '../support/endorsement-maker.ts'
import {
  forgeAnswer,
  forgedEndorsementKey,
  forgePayload,
  type Lies,
} from '../support/forged-tpm.ts'
import {
  MemoryTpmInventory,
  serverExchange,
  type TestConnection,
  testConnection,
} from '../support/tpm-exchange.ts'

/** An attempt to be admitted by evidence that does not prove. */
export interface Forgery {
  /** What is forged. */
  readonly name: string
  /** The reason it must be refused for. */
  readonly reason: TpmRefusal
  /**
   * What happens without the check that refuses it: `accepted`, or the reason of the check behind it, or `broken`
   * where what follows cannot go on.
   */
  readonly without: TpmRefusal | 'accepted' | 'broken'
  /**
   * The check, where it is not the `throw` of the reason: [file under src, code, code instead].
   */
  readonly check?: readonly [file: string, code: string, instead: string]
  readonly lies?: Lies
  readonly server?: Partial<TpmNodeAttestorOptions>
  /** What the inventory holds of the forger's endorsement key. */
  readonly record?: TpmInventoryRecord
  /** Happens between challenge and answer. */
  readonly meanwhile?: (scene: Scene) => Promise<void>
  /** The connection the answer is made for, instead of the one it comes on. */
  readonly connection?: TestConnection
  /** Whether the answer is that of an earlier attestation. */
  readonly replay?: boolean
  readonly withoutTls?: boolean
}

/** Where a forgery happens. */
export interface Scene {
  readonly clock: FakeClock
  readonly inventory: MemoryTpmInventory
  readonly hash: string
}

/** The server's half, or a copy of it that lacks a check. */
export type ServerFactory = (options: TpmNodeAttestorOptions) => NodeAttestor

const now = Temporal.Instant.from('2026-06-01T00:00:00Z')

/** Tries a forgery on a server made by `factory`. @throws what the server refuses with. */
export async function attempt(forgery: Forgery, factory: ServerFactory): Promise<AttestedNode> {
  const { lies = {}, record } = forgery
  const scene = {
    clock: new FakeClock(now),
    inventory: new MemoryTpmInventory(),
    hash: hashOf(lies),
  }
  if (record !== undefined) scene.inventory.records.set(scene.hash, record)
  const server = factory({
    trustDomain: parseTrustDomain('example.org'),
    endorsementAuthorities: [maker.rootCertificate],
    allow: 'endorsement_ca',
    inventory: scene.inventory,
    clock: scene.clock,
    random: new SystemRandom(),
    log: silentLog,
    ...forgery.server,
  })
  const earlier = forgery.replay === true ? await recordAnswer(server, lies) : undefined
  const exchange = serverExchange(forgePayload(lies), async (challenge) => {
    await forgery.meanwhile?.(scene)
    return earlier ?? forgeAnswer(lies, challenge, forgery.connection)
  })
  return await server.attest(
    forgery.withoutTls === true ? { ...exchange, tlsExporter: () => undefined } : exchange,
  )
}

/** What became of a forgery: `accepted`, a reason, or `broken`. */
export async function outcome(forgery: Forgery, factory: ServerFactory): Promise<string> {
  try {
    await attempt(forgery, factory)
    return 'accepted'
  } catch (error) {
    // Rewritten modules share `#base`, so that their errors are of this class too.
    return error instanceof AssayError && error.reason !== undefined ? error.reason : 'broken'
  }
}

/** The whole answer of an attestation that was accepted. */
async function recordAnswer(server: NodeAttestor, lies: Lies): Promise<Uint8Array> {
  let recorded = new Uint8Array(0)
  const connection = testConnection()
  await server.attest(
    serverExchange(forgePayload(lies), async (challenge) => {
      recorded = new Uint8Array(forgeAnswer(lies, challenge, connection))
      return recorded
    }),
  )
  return recorded
}

const hashOf = (lies: Lies): string =>
  identityOf((lies.endorsementKey ?? forgedEndorsementKey).area).hash

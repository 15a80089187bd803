import { State } from '#rpc/gen/assay/server/v1/inventory.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { Datastore } from '../datastore/datastore.ts'
import { pagesOf } from '../datastore/pages.ts'
import { isBanned } from '../node/banned.ts'
import { readCsr } from './attest-agent.ts'
import type { Guard } from './guard.ts'
import { parseTrustDomainField } from './messages.ts'

interface IdMessage {
  readonly trustDomain: string
  readonly path: string
}

type Judged = Pick<Guard, 'isPrivileged' | 'isAbovePrivileged' | 'isAdministering'>

/** What can be told of a request before its handler runs. The guard looks again when it is done. */
export class RequestJudge {
  readonly #guard: Judged
  readonly #datastore: Pick<Datastore, 'entry' | 'listEntries' | 'node'>

  constructor(dependencies: {
    readonly guard: Judged
    readonly datastore: Pick<Datastore, 'entry' | 'listEntries' | 'node'>
  }) {
    this.#guard = dependencies.guard
    this.#datastore = dependencies.datastore
  }

  /** Somebody could come to have rights by it, as {@link Guard.checkAll} has it. */
  async givesRights(method: string, request: unknown): Promise<boolean> {
    switch (method) {
      case '/spire.api.server.bundle.v1.Bundle/AppendBundle':
        return true
      case '/spire.api.server.bundle.v1.Bundle/BatchCreateFederatedBundle':
      case '/spire.api.server.bundle.v1.Bundle/BatchUpdateFederatedBundle':
      case '/spire.api.server.bundle.v1.Bundle/BatchSetFederatedBundle': {
        const { bundle } = request as {
          readonly bundle: readonly { readonly trustDomain: string }[]
        }
        return bundle.some(({ trustDomain }) =>
          this.#guard.isAdministering(trustDomain as TrustDomain),
        )
      }
      case deleteBundle:
        return this.#ofFederating(request as BundleDeletionFields)
      case '/spire.api.server.entry.v1.Entry/BatchCreateEntry':
      case '/spire.api.server.entry.v1.Entry/BatchUpdateEntry':
        return this.#ofEntries((request as { readonly entries: readonly EntryMessage[] }).entries)
      case '/spire.api.server.entry.v1.Entry/BatchDeleteEntry':
        return this.#ofEntries(
          (request as { readonly ids: readonly string[] }).ids.map((id) => ({ id })),
        )
      case '/spire.api.server.agent.v1.Agent/CreateJoinToken': {
        const { agentId, token } = request as {
          readonly agentId?: IdMessage
          readonly token: string
        }
        return token !== '' || this.#givesRightsTo(agentId)
      }
      case '/spire.api.server.svid.v1.SVID/MintJWTSVID':
        return this.#isPrivileged((request as { readonly id?: IdMessage }).id)
      case '/spire.api.server.svid.v1.SVID/MintX509SVID':
        return urisOf((request as { readonly csr: Uint8Array }).csr).some((uri) =>
          this.#guard.isPrivileged(uri as SpiffeId),
        )
      default:
        return false
    }
  }

  /**
   * The set it counts as beside its method's: evicting a banned node lets its TPM in again, the alias of a join token is
   * an entry, whose SVID the node can have, and with a bundle may go the entries that federate with it.
   */
  async alsoCountsAs(
    method: string,
    request: unknown,
  ): Promise<'inventory' | 'entries' | undefined> {
    if (method === '/spire.api.server.agent.v1.Agent/CreateJoinToken') {
      return (request as { readonly agentId?: IdMessage }).agentId && 'entries'
    }
    if (method === deleteBundle) {
      return (request as BundleDeletionFields).mode === 0 ? undefined : 'entries'
    }
    if (method !== '/spire.api.server.agent.v1.Agent/DeleteAgent') return undefined
    const { id } = request as { readonly id?: IdMessage }
    if (id === undefined) return undefined
    const node = await this.#datastore.node(asId(id))
    return node !== undefined && isBanned(node) ? 'inventory' : undefined
  }

  /** It stops a machine, or changes nothing: that must not have to wait for anybody. */
  onlyTakesAway(method: string, request: unknown): boolean {
    if (method === '/spire.api.server.agent.v1.Agent/BanAgent') return true
    if (method === '/assay.server.v1.Inventory/Import') {
      return (request as { readonly dryRun: boolean }).dryRun
    }
    if (method !== '/assay.server.v1.Inventory/SetState') return false
    const { state, nodeName } = request as { readonly state: State; readonly nodeName: string }
    return (state === State.BANNED || state === State.DENIED) && nodeName === ''
  }

  async #ofEntries(entries: readonly EntryMessage[]): Promise<boolean> {
    for (const { id, admin, downstream, spiffeId } of entries) {
      if (admin === true || downstream === true || this.#givesRightsTo(spiffeId)) return true
      const stored = id === undefined || id === '' ? undefined : await this.#datastore.entry(id)
      if (stored === undefined) continue
      if (stored.admin || stored.downstream || this.#givesRights(stored.spiffeId)) return true
    }
    return false
  }

  /** Those entries are deleted or changed with the bundle. */
  async #ofFederating({ trustDomains, mode }: BundleDeletionFields): Promise<boolean> {
    const names = trustDomains.flatMap(trustDomainOf)
    if (mode === 0 || names.length === 0) return false
    const filter = { federatesWith: { match: 'any', trustDomains: names } } as const
    for await (const entries of pagesOf((page) => this.#datastore.listEntries(filter, page))) {
      if (
        entries.some((one) => one.admin || one.downstream || this.#guard.isPrivileged(one.spiffeId))
      )
        return true
    }
    return false
  }

  #isPrivileged(id: IdMessage | undefined): boolean {
    return id !== undefined && this.#guard.isPrivileged(asId(id))
  }

  #givesRightsTo(id: IdMessage | undefined): boolean {
    return id !== undefined && this.#givesRights(asId(id))
  }

  /** To who gets an SVID of this ID by an entry, or serves what is below it. */
  #givesRights(id: SpiffeId): boolean {
    return this.#guard.isPrivileged(id) || this.#guard.isAbovePrivileged(id)
  }
}

const deleteBundle = '/spire.api.server.bundle.v1.Bundle/BatchDeleteFederatedBundle'

interface BundleDeletionFields {
  readonly trustDomains: readonly string[]
  /** Zero: entries that federate with it stand in its way. */
  readonly mode: number
}

interface EntryMessage {
  readonly id?: string
  readonly admin?: boolean
  readonly downstream?: boolean
  readonly spiffeId?: IdMessage | undefined
}

/** What is not well-formed is nobody's ID, and is refused by the handler. */
const asId = ({ trustDomain, path }: IdMessage): SpiffeId =>
  `spiffe://${trustDomain}${path}` as SpiffeId

function trustDomainOf(name: string): readonly TrustDomain[] {
  try {
    return [parseTrustDomainField(name)]
  } catch {
    // The handler says what is wrong with it.
    return []
  }
}

function urisOf(csr: Uint8Array): readonly string[] {
  try {
    return readCsr(csr).uris
  } catch {
    // The handler says what is wrong with it.
    return []
  }
}

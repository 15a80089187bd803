import { hash } from 'node:crypto'
import { equalBytes } from '#base/bytes.ts'
import { AssayError } from '#base/errors.ts'
import { type CallContext, Encoded } from '#rpc/call.ts'
import type {
  AppendBundleRequest,
  BatchCreateFederatedBundleRequest,
  BatchDeleteFederatedBundleRequest,
  BatchSetFederatedBundleRequest,
  BatchUpdateFederatedBundleRequest,
  CountBundlesRequest,
  GetBundleRequest,
  GetFederatedBundleRequest,
  ListFederatedBundlesRequest,
  PublishJWTAuthorityRequest,
} from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import type { BundleMask, Bundle as BundleMessage } from '#rpc/gen/spire/api/types/bundle.ts'
import type { Bundle, JwtAuthority, X509Authority } from '#spiffe/bundle.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import { isCovered } from '../administrators/rights.ts'
import type { BundleCache } from '../bundle/bundle-cache.ts'
import type { AttestedNodeRecord, BundleDeletion, Datastore } from '../datastore/datastore.ts'
import type { NodeHoldings } from '../node/node-holdings.ts'
import { answerEach, noted } from './batch.ts'
import {
  bundleBytes,
  bundleMessage,
  jwtKeyMessage,
  noBundle,
  parseBundleMessage,
  parseJwtAuthority,
  parseX509Authorities,
} from './bundle-messages.ts'
import { notesOf } from './call-notes.ts'
import { rightsOf } from './caller.ts'
import { denied } from './denied.ts'
import type { Guard } from './guard.ts'
import { malformed, parsePage, parseTrustDomainField } from './messages.ts'

export interface BundleServiceDependencies {
  readonly trustDomain: TrustDomain
  readonly datastore: Pick<Datastore, 'listBundles' | 'updateBundle' | 'deleteBundle'>
  readonly bundles: BundleCache
  readonly nodes: { node(agentId: SpiffeId): AttestedNodeRecord | undefined }
  readonly holdings: Pick<NodeHoldings, 'bundleServed'>
  readonly guard: Guard
}

/** `spire.api.server.bundle.v1.Bundle`: what verifiers need, of our own trust domain and of others. */
export function newBundleService(dependencies: BundleServiceDependencies) {
  const { trustDomain, datastore, bundles, nodes, holdings, guard } = dependencies

  return {
    async countBundles(_request: CountBundlesRequest) {
      return { count: bundles.size }
    },

    async getBundle({ outputMask }: GetBundleRequest, { peer }: CallContext) {
      const bundle = bundles.bundle(trustDomain) ?? noBundle(trustDomain)
      // Anybody may ask; what a node has is of interest, and only when it has shown which one it is.
      const caller = peer.kind === 'tls' ? peer.spiffeId : undefined
      if (caller !== undefined && nodes.node(caller) !== undefined) {
        holdings.bundleServed(caller, bundle.sequenceNumber)
      }
      return answer(bundle, outputMask)
    },

    async appendBundle(request: AppendBundleRequest, context: CallContext) {
      guard.checkAll(context, 'whoever has the key of an authority in the bundle can be anybody')
      const x509Authorities = parseX509Authorities(request.x509Authorities)
      const jwtAuthorities = request.jwtAuthorities.map(parseJwtAuthority)
      if (x509Authorities.length === 0 && jwtAuthorities.length === 0) {
        throw malformed('request', 'no authority was given')
      }
      const bundle = await datastore.updateBundle(trustDomain, (present) =>
        withAuthorities(present ?? noBundle(trustDomain), { x509Authorities, jwtAuthorities }),
      )
      notesOf(context).subject = trustDomain
      notesOf(context).details = authorityNames({ x509Authorities, jwtAuthorities })
      return bundleMessage(bundle, request.outputMask)
    },

    async publishJWTAuthority({ jwtAuthority }: PublishJWTAuthorityRequest, context: CallContext) {
      if (jwtAuthority === undefined) throw malformed('JWT authority', 'it is missing')
      const authority = parseJwtAuthority(jwtAuthority)
      notesOf(context).subject = trustDomain
      notesOf(context).details = { jwtAuthorities: [authority.keyId] }
      const bundle = await datastore.updateBundle(trustDomain, (present) =>
        withAuthorities(present ?? noBundle(trustDomain), {
          x509Authorities: [],
          jwtAuthorities: [authority],
        }),
      )
      return { jwtAuthorities: bundle.jwtAuthorities.map(jwtKeyMessage) }
    },

    async listFederatedBundles(request: ListFederatedBundlesRequest) {
      const { items, nextPageToken } = await datastore.listBundles(parsePage(request))
      return {
        bundles: items
          .filter((bundle) => bundle.trustDomain !== trustDomain)
          .map((bundle) => bundleMessage(bundle, request.outputMask)),
        nextPageToken,
      }
    },

    async getFederatedBundle(request: GetFederatedBundleRequest) {
      const wanted = foreign(request.trustDomain)
      return answer(bundles.bundle(wanted) ?? noBundle(wanted), request.outputMask)
    },

    async batchCreateFederatedBundle(
      request: BatchCreateFederatedBundleRequest,
      context: CallContext,
    ) {
      return store(request, context, (present, given) => {
        if (present === undefined) return given
        throw new AssayError('already-exists', `bundle already exists: ${given.trustDomain}`, {
          reason: 'bundle-exists',
        })
      })
    },

    async batchUpdateFederatedBundle(
      request: BatchUpdateFederatedBundleRequest,
      context: CallContext,
    ) {
      const { inputMask } = request
      return store(request, context, (present, given) =>
        updated(present ?? noBundle(given.trustDomain), given, inputMask),
      )
    },

    async batchSetFederatedBundle(request: BatchSetFederatedBundleRequest, context: CallContext) {
      return store(request, context, (_present, given) => given)
    },

    async batchDeleteFederatedBundle(
      request: BatchDeleteFederatedBundleRequest,
      context: CallContext,
    ) {
      const mode = deletionModes[request.mode]
      if (mode === undefined) throw malformed('mode', `${request.mode} is not known`)
      const results = await answerEach(
        request.trustDomains,
        async (name) => {
          await datastore.deleteBundle(foreign(name), mode, (entry) => checkEntry(context, entry))
          return { trustDomain: name }
        },
        (name) => ({ trustDomain: name }),
      )
      const names = request.trustDomains
      noted(context, { results }, (index) => names[index]?.slice(0, 255) ?? '')
      notesOf(context).details = { ...notesOf(context).details, mode }
      return { results }
    },
  }

  function foreign(name: string): TrustDomain {
    const parsed = parseTrustDomainField(name)
    if (parsed === trustDomain) {
      throw malformed(
        'trust domain',
        'it is this server’s own, which does not federate with itself',
      )
    }
    return parsed
  }

  /** An entry that goes or changes with a bundle takes the right to entries too. @throws AssayError `permission-denied`. */
  function checkEntry(context: CallContext, entry: RegistrationEntry): void {
    const rights = rightsOf(context)
    const permission = rights.permission(deleteEntry)
    if (permission === undefined || !isCovered(entry.spiffeId, permission.prefixes)) {
      throw denied(context.method, {
        reason: 'right-missing',
        why: `entries federate with it, and ${rights.holder} has not the right to 'entries' of each; delete it with mode restrict when none does any more`,
      })
    }
    guard.checkStored(context, entry)
  }

  /** Taints are for a trust domain's own servers to act on, so an imported bundle has none. */
  async function store(
    request: {
      readonly bundle: readonly BundleMessage[]
      readonly outputMask: BundleMask | undefined
    },
    context: CallContext,
    change: (present: Bundle | undefined, given: Bundle) => Bundle,
  ) {
    const results = await answerEach(
      request.bundle,
      async (message) => {
        guard.checkBundle(context, foreign(message.trustDomain))
        const given = untainted(parseBundleMessage(message))
        const bundle = await datastore.updateBundle(given.trustDomain, (present) =>
          change(present, given),
        )
        return { bundle: bundleMessage(bundle, request.outputMask) }
      },
      () => ({ bundle: undefined }),
    )
    return noted(
      context,
      { results },
      (index) => request.bundle[index]?.trustDomain.slice(0, 255) ?? '',
    )
  }
}

const deleteEntry = '/spire.api.server.entry.v1.Entry/BatchDeleteEntry'

const deletionModes: Readonly<Record<number, BundleDeletion>> = {
  0: 'restrict',
  1: 'delete',
  2: 'dissociate',
}

const answer = (bundle: Bundle, mask: BundleMask | undefined): Encoded | BundleMessage =>
  mask === undefined ? new Encoded(bundleBytes(bundle)) : bundleMessage(bundle, mask)

/** `bundle` with what is new among the authorities. */
function withAuthorities(
  bundle: Bundle,
  added: {
    readonly x509Authorities: readonly X509Authority[]
    readonly jwtAuthorities: readonly JwtAuthority[]
  },
): Bundle {
  const newCertificates = added.x509Authorities.filter(
    ({ certificate }) =>
      !bundle.x509Authorities.some((known) => equalBytes(known.certificate, certificate)),
  )
  const newKeys = added.jwtAuthorities.filter(
    ({ keyId }) => !bundle.jwtAuthorities.some((known) => known.keyId === keyId),
  )
  return {
    ...bundle,
    x509Authorities: [...bundle.x509Authorities, ...newCertificates],
    jwtAuthorities: [...bundle.jwtAuthorities, ...newKeys],
  }
}

/** Authorities for an audit record: certificates as their SHA-256, keys by their id. */
const authorityNames = (of: {
  readonly x509Authorities: readonly X509Authority[]
  readonly jwtAuthorities: readonly JwtAuthority[]
}) => ({
  x509Authorities: of.x509Authorities.map(({ certificate }) => hash('sha256', certificate)),
  jwtAuthorities: of.jwtAuthorities.map(({ keyId }) => keyId),
})

function updated(present: Bundle, given: Bundle, mask: BundleMask | undefined): Bundle {
  if (mask === undefined) return given
  return {
    ...present,
    ...(mask.x509Authorities && { x509Authorities: given.x509Authorities }),
    ...(mask.jwtAuthorities && { jwtAuthorities: given.jwtAuthorities }),
    ...(mask.refreshHint && { refreshHintSeconds: given.refreshHintSeconds }),
    ...(mask.sequenceNumber && { sequenceNumber: given.sequenceNumber }),
  }
}

const untainted = (bundle: Bundle): Bundle => ({
  ...bundle,
  x509Authorities: bundle.x509Authorities.map((authority) => ({ ...authority, tainted: false })),
  jwtAuthorities: bundle.jwtAuthorities.map((authority) => ({ ...authority, tainted: false })),
})

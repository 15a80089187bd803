import { Metadata, status } from '@grpc/grpc-js'
import { AssayError, type ErrorCode } from '#base/errors.ts'
import { Status as RpcStatus } from './gen/google/rpc/status.ts'
import {
  PermissionDeniedDetails,
  PermissionDeniedDetails_Reason,
} from './gen/spire/api/types/status.ts'

/** The gRPC status code of each {@link ErrorCode}. */
const codes: Readonly<Record<ErrorCode, status>> = {
  'invalid-argument': status.INVALID_ARGUMENT,
  unauthenticated: status.UNAUTHENTICATED,
  'permission-denied': status.PERMISSION_DENIED,
  'not-found': status.NOT_FOUND,
  'already-exists': status.ALREADY_EXISTS,
  'failed-precondition': status.FAILED_PRECONDITION,
  'resource-exhausted': status.RESOURCE_EXHAUSTED,
  unavailable: status.UNAVAILABLE,
  unimplemented: status.UNIMPLEMENTED,
  internal: status.INTERNAL,
}

/** What a code we never send means for us; a reason tells it apart from its kind. */
const foreignCodes: ReadonlyMap<status, { code: ErrorCode; reason: string }> = new Map([
  [status.CANCELLED, { code: 'unavailable', reason: 'cancelled' }],
  [status.UNKNOWN, { code: 'internal', reason: 'unknown' }],
  [status.DEADLINE_EXCEEDED, { code: 'unavailable', reason: 'deadline-exceeded' }],
  [status.ABORTED, { code: 'unavailable', reason: 'aborted' }],
  [status.OUT_OF_RANGE, { code: 'invalid-argument', reason: 'out-of-range' }],
  [status.DATA_LOSS, { code: 'internal', reason: 'data-loss' }],
])

const reasonHeader = 'assay-reason'
/** Trailer of a failed call, and header by which a client that has shown who it is names its call. */
export const requestIdHeader = 'assay-request-id'
const detailsHeader = 'grpc-status-details-bin'
const detailsType = 'type.googleapis.com/spire.api.types.PermissionDeniedDetails'

/** Longest message that crosses the wire, in characters: peers bound the size of trailers. */
const maxMessage = 2048

/** The code and text of an error as they cross the wire, in a call's status or in one item of a batch. */
export interface WireStatus {
  /** A gRPC status code. */
  readonly code: number
  readonly message: string
}

/**
 * How an error is told to a client. Only an {@link AssayError} is told as it is; anything else is a bug, whose
 * text may hold what a client must not see, and is told as INTERNAL.
 */
export function wireStatus(error: unknown): WireStatus {
  if (!(error instanceof AssayError)) return { code: status.INTERNAL, message: 'internal error' }
  // A lone surrogate has no UTF-8, and would throw where the trailer is encoded.
  return { code: codes[error.code], message: error.message.slice(0, maxMessage).toWellFormed() }
}

/** The trailers that go with an error: its reason, the request id, and the details that SPIRE's agents read. */
export function errorTrailers(error: unknown, requestId: string): Metadata {
  const trailers = new Metadata()
  trailers.set(requestIdHeader, requestId)
  const reason = error instanceof AssayError ? error.reason : undefined
  if (reason === undefined) return trailers
  trailers.set(reasonHeader, reason)
  const detail = detailOf(reason)
  if (detail !== undefined) {
    const value = PermissionDeniedDetails.encode({ reason: detail }).finish()
    const bytes = RpcStatus.encode({
      ...wireStatus(error),
      details: [{ typeUrl: detailsType, value }],
    }).finish()
    // biome-ignore lint/style/noRestrictedGlobals: grpc-js takes binary metadata as a Buffer only
    trailers.set(detailsHeader, Buffer.from(bytes))
  }
  return trailers
}

/** `agent-banned` and its like are the names of SPIRE's reasons in kebab-case. */
function detailOf(reason: string): PermissionDeniedDetails_Reason | undefined {
  const name = reason.toUpperCase().replaceAll('-', '_')
  const known = Object.entries(PermissionDeniedDetails_Reason)
  return known.find(([key, value]) => key === name && value > 0)?.[1]
}

/** A failed call as grpc-js reports it. */
export interface FailedCall {
  readonly code: number
  readonly details: string
  readonly metadata: Metadata
}

/** The error that a server threw, as far as it crossed the wire. `cause` is what grpc-js reported. */
export function errorFromStatus(failed: FailedCall): AssayError {
  const { code, details, metadata } = failed
  const foreign = foreignCodes.get(code)
  const own = Object.entries(codes).find(([, value]) => value === code)?.[0] as
    | ErrorCode
    | undefined
  const reason = textOf(metadata, reasonHeader) ?? reasonFromDetails(metadata) ?? foreign?.reason
  return new AssayError(own ?? foreign?.code ?? 'internal', details, {
    cause: failed,
    ...(reason !== undefined && { reason }),
  })
}

/** The id under which the server logged the call that ended in `error`, for a person to look it up by. */
export function requestIdOf(error: unknown): string | undefined {
  for (let at = error; at instanceof AssayError; at = at.cause) {
    const metadata = (at.cause as Partial<FailedCall> | undefined)?.metadata
    const id = metadata instanceof Metadata ? textOf(metadata, requestIdHeader) : undefined
    if (id !== undefined) return id
  }
  return undefined
}

/** {@link errorFromStatus} for one item that failed in a call which did not, and was named `requestId`. */
export function errorFromItem({ code, message }: WireStatus, requestId: string): AssayError {
  const metadata = new Metadata()
  metadata.set(requestIdHeader, requestId)
  return errorFromStatus({ code, details: message, metadata })
}

function textOf(metadata: Metadata, name: string): string | undefined {
  const value = metadata.get(name)[0]
  return typeof value === 'string' && /^[\x21-\x7e]{1,128}$/.test(value) ? value : undefined
}

function reasonFromDetails(metadata: Metadata): string | undefined {
  const bytes = metadata.get(detailsHeader)[0]
  if (!(bytes instanceof Uint8Array)) return undefined
  try {
    for (const { typeUrl, value } of RpcStatus.decode(bytes).details) {
      if (typeUrl !== detailsType) continue
      const { reason } = PermissionDeniedDetails.decode(value)
      const known = Object.entries(PermissionDeniedDetails_Reason)
      return known
        .find(([, number]) => number === reason && number > 0)?.[0]
        .toLowerCase()
        .replaceAll('_', '-')
    }
  } catch {
    // Details are an extra: an error stands without them.
  }
  return undefined
}

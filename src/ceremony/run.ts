import type { KeyObject } from 'node:crypto'
import process from 'node:process'
import { equalBytes, utf8Bytes } from '#base/bytes.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import { version } from '#base/version.ts'
import { type Certificate, describe } from '#pki/certificate.ts'
import { verifyChain } from '#pki/chain.ts'
import { encodePem } from '#pki/pem.ts'
import { type CeremonyFile, parseCeremonyFile } from './ceremony-file.ts'
import { type CeremonyInputs, loadCeremonyInputs } from './inputs.ts'
import { lintCaCertificate } from './lints.ts'
import { loadOperatorKeys, loadOperators, signTranscript } from './operators.ts'
import { checkOutputs, writeOutputs } from './outputs.ts'
import { approvePlan, draftFor, planCeremony, refuseFindings, sha256 } from './plan.ts'
import { type CeremonyDeps, TokenKey, type TokenKeyFacts, where } from './token-key.ts'
import { encodeTranscript, type Transcript, transcriptFormat } from './transcript.ts'

/** The text of a ceremony's file, and what it is called. */
export interface CeremonyDocument {
  readonly text: string
  readonly file: string
}

/** What a person decides when a ceremony is held. */
export interface CeremonyChoices {
  /** Files with operators' private keys. */
  readonly operatorKeys: readonly string[]
  /** A hash that was agreed to, beside the one the file may have. */
  readonly expect: string | undefined
  /** Told of each step before it is taken. */
  readonly onStep: (what: string) => void
}

/** What a ceremony has made. */
export interface CeremonyResult {
  readonly certificate: Certificate
  readonly transcript: Transcript
  /** Every file that was written. */
  readonly written: readonly string[]
}

/**
 * Holds a ceremony: makes the key if one is to be made, has the certificate signed, judges it, and writes everything
 * at the end. Whatever fails before that leaves no file, and the key that was made is destroyed again.
 *
 * @throws AssayError that says what is missing, or what failed and whether a key is left.
 */
export async function runCeremony(
  document: CeremonyDocument,
  choices: CeremonyChoices,
  { signal, ...deps }: CeremonyDeps & { readonly signal: AbortSignal },
): Promise<CeremonyResult> {
  const startedAt = instantText(deps)
  const ceremony = parseCeremonyFile(document.text, document.file)
  const inputs = await loadCeremonyInputs(ceremony)
  const plan = planCeremony(ceremony, inputs)
  approvePlan(plan, [ceremony.expect_tbs_sha256, choices.expect])
  checkTime(ceremony, inputs, deps)
  const operators = await loadOperatorKeys(choices.operatorKeys, {
    operators: await loadOperators(ceremony),
    required: ceremony.operators.required,
  })
  await checkOutputs(outputPaths(ceremony, operators))

  await using resources = new AsyncDisposableStack()
  const step = (what: string): void => {
    signal.throwIfAborted()
    choices.onStep(what)
  }
  const issuerKey = await openIssuer(ceremony, inputs, { deps, step })
  if (issuerKey !== undefined) resources.use(issuerKey)
  const subject = await openSubject(ceremony, inputs, { deps, step })
  if (subject !== undefined) resources.use(subject)
  try {
    const publicKey = subject?.publicKey ?? inputs.publicKey
    const signer = issuerKey ?? subject
    if (publicKey === undefined || signer === undefined) throw new TypeError('nothing to sign')
    const draft = draftFor(ceremony, inputs, publicKey)
    step(`signing ${draft.toBeSigned.length} bytes, SHA-256 ${sha256(draft.toBeSigned)}`)
    const certificate = draft.finish(await signer.sign(draft.toBeSigned))
    const findings = lintCaCertificate(certificate, {
      issuer: inputs.issuer,
      trustDomain: ceremony.trust_domain,
    })
    refuseFindings(findings)
    verifyPath(certificate, inputs)
    const transcript: Transcript = {
      format: transcriptFormat,
      assay: version,
      node: process.version,
      started_at: startedAt,
      finished_at: instantText(deps),
      file: {
        name: document.file,
        sha256: sha256(utf8Bytes(document.text)),
        text: document.text,
      },
      planned_tbs_sha256: plan.tbsSha256,
      key: {
        public_key: publicKey,
        made: ceremony.key.kind === 'generate',
        on_token: subject && factsOf(subject.facts),
      },
      issuer:
        inputs.issuer === undefined || issuerKey === undefined
          ? undefined
          : { certificate: inputs.issuer.raw, on_token: factsOf(issuerKey.facts) },
      lints: findings.map(({ rule }) => rule),
      tbs: draft.toBeSigned,
      tbs_sha256: sha256(draft.toBeSigned),
      certificate: certificate.raw,
      operators: {
        required: ceremony.operators.required,
        signing: new Map(
          [...(await loadOperators(ceremony))].filter(([name]) => operators.has(name)),
        ),
      },
    }
    const files = outputFiles(ceremony, { transcript, operators })
    step(`writing ${[...files.keys()].join(', ')}`)
    await writeOutputs(files)
    return { certificate, transcript, written: [...files.keys()] }
  } catch (error) {
    throw await withdrawn(error, { ceremony, subject })
  }
}

async function openIssuer(
  { issuer: settings }: CeremonyFile,
  { issuer }: CeremonyInputs,
  { deps, step }: { readonly deps: CeremonyDeps; readonly step: (what: string) => void },
): Promise<TokenKey | undefined> {
  if (settings === undefined || issuer === undefined) return undefined
  step(`opening ${where(settings)} for the issuer's key "${settings.label}"`)
  const key = await TokenKey.open(settings, deps)
  if (equalBytes(key.publicKey, issuer.publicKey)) return key
  await key[Symbol.asyncDispose]()
  throw new AssayError(
    'failed-precondition',
    `cannot sign: key "${settings.label}" on ${where(settings)} is not that of ${describe(issuer)}`,
    { reason: 'ceremony-key' },
  )
}

async function openSubject(
  { key: settings }: CeremonyFile,
  { publicKey }: CeremonyInputs,
  { deps, step }: { readonly deps: CeremonyDeps; readonly step: (what: string) => void },
): Promise<TokenKey | undefined> {
  switch (settings.kind) {
    case 'public_key':
    case 'csr':
      return undefined
    case 'generate':
      step(`making ${settings.type} key "${settings.label}" on ${where(settings)}`)
      return await TokenKey.generate(settings, deps)
    case 'existing': {
      step(`opening ${where(settings)} for key "${settings.label}"`)
      const key = await TokenKey.open(settings, deps)
      if (publicKey !== undefined && equalBytes(key.publicKey, publicKey)) return key
      await key[Symbol.asyncDispose]()
      throw new AssayError(
        'failed-precondition',
        `cannot certify key "${settings.label}" on ${where(settings)}: it is not the one in ${settings.public_key_file}`,
        { reason: 'ceremony-key' },
      )
    }
  }
}

/** A ceremony that failed has made nothing; when that cannot be, it says what is left. */
async function withdrawn(
  error: unknown,
  {
    ceremony,
    subject,
  }: { readonly ceremony: CeremonyFile; readonly subject: TokenKey | undefined },
): Promise<unknown> {
  const { key } = ceremony
  if (key.kind !== 'generate' || subject === undefined) return error
  try {
    await subject.destroy()
    return error
  } catch (failure) {
    const code = error instanceof AssayError ? error.code : 'internal'
    return new AssayError(
      code,
      `${messageOf(error)}; the new key "${key.label}" is still on ${where(key)} and must be destroyed by hand: ${messageOf(failure)}`,
      { reason: 'ceremony-key-left', cause: error },
    )
  }
}

/** What is signed now must count now, or soon. */
function checkTime(
  { certificate }: CeremonyFile,
  { issuer }: CeremonyInputs,
  { clock }: CeremonyDeps,
): void {
  const now = clock.now().epochMilliseconds / 1000
  const why =
    certificate.not_after <= now
      ? 'the certificate would have expired already'
      : issuer !== undefined && issuer.notAfterSeconds <= now
        ? 'the issuer’s certificate has expired'
        : undefined
  if (why === undefined) return
  throw new AssayError('failed-precondition', `cannot sign: ${why}; or is the clock wrong?`, {
    reason: 'ceremony-lint',
  })
}

function verifyPath(certificate: Certificate, { issuer }: CeremonyInputs): void {
  const nowSeconds = certificate.notBeforeSeconds
  verifyChain({ leaf: certificate, intermediates: [], roots: [issuer ?? certificate], nowSeconds })
}

function outputPaths(
  { outputs }: CeremonyFile,
  operators: ReadonlyMap<string, KeyObject>,
): readonly string[] {
  return [
    outputs.certificate,
    ...(outputs.public_key === undefined ? [] : [outputs.public_key]),
    outputs.transcript,
    ...[...operators.keys()].map((name) => signaturePath(outputs.transcript, name)),
  ]
}

function outputFiles(
  { outputs }: CeremonyFile,
  of: { readonly transcript: Transcript; readonly operators: ReadonlyMap<string, KeyObject> },
): ReadonlyMap<string, Uint8Array> {
  const { certificate, key } = of.transcript
  const document = encodeTranscript(of.transcript)
  return new Map([
    [outputs.certificate, utf8Bytes(encodePem('CERTIFICATE', certificate))],
    ...(outputs.public_key === undefined
      ? []
      : ([[outputs.public_key, utf8Bytes(encodePem('PUBLIC KEY', key.public_key))]] as const)),
    [outputs.transcript, document],
    ...[...of.operators].map(
      ([name, operatorKey]) =>
        [signaturePath(outputs.transcript, name), signTranscript(operatorKey, document)] as const,
    ),
  ])
}

/** Where the detached signature of an operator over a transcript is. */
export const signaturePath = (transcript: string, operator: string): string =>
  `${transcript}.${operator}.sig`

const factsOf = ({ token, label, id, attributes }: TokenKeyFacts) => ({
  token_label: token.label,
  token_serial: token.serial || '-',
  token_model: token.model || '-',
  label,
  id,
  attributes: new Map(Object.entries(attributes)),
})

const instantText = ({ clock }: CeremonyDeps): string =>
  clock.now().toString({ smallestUnit: 'second' })

import { readFile } from 'node:fs/promises'
import { parseCeremonyFile } from '#ceremony/ceremony-file.ts'
import { loadCeremonyInputs } from '#ceremony/inputs.ts'
import { loadOperators } from '#ceremony/operators.ts'
import { planCeremony } from '#ceremony/plan.ts'
import { runCeremony } from '#ceremony/run.ts'
import { loadSignatures, verifyTranscript } from '#ceremony/verify.ts'
import { parsePem } from '#pki/pem.ts'
import { planLines } from '../ceremony-words.ts'
import {
  all,
  type Command,
  type CommandContext,
  optional,
  readNamed,
  UsageError,
} from '../command.ts'
import { exitStatuses } from '../exit-status.ts'
import { askPin } from '../pin-prompt.ts'
import { fields, timeText } from '../print.ts'

const failed = exitStatuses[1][0]

const plan: Command = {
  name: 'ceremony plan',
  summary: 'print what a ceremony will make and sign, to the last byte, and make nothing',
  positionals: 'FILE',
  options: [],
  details: `
No token is opened and no PIN is needed. Review the output, and put the hash at its end into the
file as expect_tbs_sha256, or give it to 'assay ceremony run' as --expect: anything else is then
refused. Where the key is made in the ceremony, zeros stand for it in these bytes, and the hash is
of them. Exit status 1: a rule is broken, and run would refuse.`,
  async run(context) {
    const file = fileOf(context)
    const ceremony = parseCeremonyFile(await readNamed(context, file), file)
    const inputs = await loadCeremonyInputs(ceremony)
    await loadOperators(ceremony)
    const planned = planCeremony(ceremony, inputs)
    const isBroken = planned.findings.some(({ problem }) => problem !== undefined)
    if (isBroken) context.setStatus(failed)
    if (context.json) {
      return context.print(
        JSON.stringify({
          kind: ceremony.kind,
          trust_domain: ceremony.trust_domain,
          tbs: planned.draft.toBeSigned.toHex(),
          tbs_sha256: planned.tbsSha256,
          key_is_made: planned.hasPlaceholder,
          rules: planned.findings,
        }),
      )
    }
    for (const line of planLines(ceremony, inputs, planned)) context.print(line)
    context.note(
      isBroken
        ? 'a rule is broken: this would not be signed'
        : 'nothing was made or signed; this is a plan',
    )
  },
}

const run: Command = {
  name: 'ceremony run',
  summary:
    'hold a ceremony: make a CA’s key in an HSM, have its certificate signed, write the record',
  positionals: 'FILE',
  options: [
    {
      name: 'operator-key',
      value: 'FILE',
      multiple: true,
      summary: 'private key of an operator who takes part and signs the transcript',
    },
    {
      name: 'expect',
      value: 'SHA256',
      summary: 'the hash that `assay ceremony plan` printed and everybody agreed to',
    },
  ],
  details: `
Files are written all at the end or not at all; a label that is on the token is refused; when
anything fails, a key that was made is destroyed again. The PIN of a token comes from pin_file, from
the systemd credential hsm-pin-LABEL, or is asked for on the terminal; it is tried once.`,
  async run(context) {
    const file = fileOf(context)
    const text = await readNamed(context, file)
    const result = await runCeremony(
      { text, file },
      {
        operatorKeys: all(context, 'operator-key'),
        expect: optional(context, 'expect'),
        onStep: (what) => {
          if (!context.json) context.note(what)
        },
      },
      {
        clock: context.clock,
        random: context.random,
        monotonicMs: () => performance.now(),
        signal: context.signal,
        askPin: (token) => askPin(token, context),
      },
    )
    const { transcript, certificate, written } = result
    if (context.json) {
      return context.print(
        JSON.stringify({
          serial_number: certificate.serialNumber,
          tbs_sha256: transcript.tbs_sha256,
          expires_at: timeText(certificate.notAfterSeconds),
          operators: [...transcript.operators.signing.keys()],
          written,
        }),
      )
    }
    const lines = fields([
      ['signed', `${certificate.subjectText}, until ${timeText(certificate.notAfterSeconds)}`],
      ['subject key identifier', certificate.subjectKeyId?.toHex() ?? ''],
      ['transcript signed by', [...transcript.operators.signing.keys()].join(', ') || 'nobody'],
    ])
    for (const line of lines) context.print(line)
    for (const path of written) context.print(`wrote ${path}`)
  },
}

const verify: Command = {
  name: 'ceremony verify',
  summary: 'check that a transcript, its signatures and its certificate are of one piece',
  positionals: 'TRANSCRIPT',
  options: [
    {
      name: 'certificate',
      value: 'FILE',
      summary: 'the certificate that was handed over; it must be the one in the transcript',
    },
  ],
  details: `
Works the signed bytes out again from the file in the transcript, and compares. The signatures of
operators are read from beside it (TRANSCRIPT.NAME.sig). Whose their keys are, a transcript cannot
prove: compare the hashes that are printed with what the operators say.`,
  async run(context) {
    const path = fileOf(context)
    const document = await read(path)
    const given = optional(context, 'certificate')
    const { transcript, certificate, signers } = verifyTranscript(document, {
      path,
      signatures: await loadSignatures(document, path),
      certificate: given === undefined ? undefined : await certificateIn(given),
    })
    const { file, key, started_at, finished_at } = transcript
    if (context.json) {
      return context.print(
        JSON.stringify({
          valid: true,
          file_sha256: file.sha256,
          tbs_sha256: transcript.tbs_sha256,
          serial_number: certificate.serialNumber,
          key: key.on_token && {
            token: key.on_token.token_label,
            serial: key.on_token.token_serial,
            label: key.on_token.label,
          },
          operators: Object.fromEntries(signers),
          started_at,
          finished_at,
        }),
      )
    }
    const lines = fields([
      ['valid', `${certificate.subjectText}, until ${timeText(certificate.notAfterSeconds)}`],
      ['held', `${started_at} to ${finished_at}, with assay ${transcript.assay}`],
      ['file', `${file.name}, SHA-256 ${file.sha256}`],
      ['key', keyText(transcript.key)],
      ['signed bytes', `SHA-256 ${transcript.tbs_sha256}`],
      ...[...signers].map(
        ([name, hash]) => [`signed by ${name}`, `public key SHA-256 ${hash}`] as const,
      ),
    ])
    for (const line of lines) context.print(line)
  },
}

function keyText({
  made,
  on_token,
}: ReturnType<typeof verifyTranscript>['transcript']['key']): string {
  if (on_token === undefined) return 'held by somebody else'
  const { label, token_label, token_serial, token_model } = on_token
  return `${made ? 'made' : 'found'} as "${label}" on token "${token_label}" serial ${token_serial} (${token_model})`
}

async function certificateIn(path: string): Promise<Uint8Array> {
  const [certificate] = parsePem(await read(path), 'CERTIFICATE')
  if (certificate === undefined) throw new UsageError(`${path} holds no certificate`)
  return certificate
}

async function read(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path)
  } catch (cause) {
    throw new UsageError(`cannot read ${path}: ${(cause as Error).message}`, { cause })
  }
}

function fileOf({ positionals: [file] }: CommandContext): string {
  if (file === undefined) throw new UsageError('name the file; see --help')
  return file
}

export const commands: readonly Command[] = [plan, run, verify]

// Verifies certificate chains twice: with Java's own PKIX validation, which knows nothing of alternative signatures,
// and their alternative signatures with Bouncy Castle. One JSON line for each directory.
//
//	java -cp JARS Verify.java DIRECTORY UNIX_TIME

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.Security;
import java.security.cert.CertPathValidator;
import java.security.cert.CertificateFactory;
import java.security.cert.PKIXParameters;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.Date;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import org.bouncycastle.asn1.x509.SubjectAltPublicKeyInfo;
import org.bouncycastle.asn1.x509.SubjectPublicKeyInfo;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.operator.jcajce.JcaContentVerifierProviderBuilder;

public class Verify {
    static List<X509Certificate> read(Path file) throws Exception {
        List<X509Certificate> found = new ArrayList<>();
        CertificateFactory factory = CertificateFactory.getInstance("X.509", "SUN");
        for (var one : factory.generateCertificates(new ByteArrayInputStream(Files.readAllBytes(file)))) {
            found.add((X509Certificate) one);
        }
        return found;
    }

    static String pkix(List<X509Certificate> chain, X509Certificate anchor, Date at) {
        try {
            PKIXParameters parameters = new PKIXParameters(Set.of(new TrustAnchor(anchor, null)));
            parameters.setRevocationEnabled(false);
            parameters.setDate(at);
            CertPathValidator validator = CertPathValidator.getInstance("PKIX", "SUN");
            validator.validate(CertificateFactory.getInstance("X.509", "SUN").generateCertPath(chain), parameters);
            return "";
        } catch (Exception error) {
            return error.toString();
        }
    }

    /** `valid`, `invalid`, or `absent`: of one certificate, by the alternative key of the one above. */
    static String alternative(X509Certificate certificate, X509Certificate issuer) throws Exception {
        X509CertificateHolder holder = new X509CertificateHolder(certificate.getEncoded());
        SubjectAltPublicKeyInfo key =
            SubjectAltPublicKeyInfo.fromExtensions(new X509CertificateHolder(issuer.getEncoded()).getExtensions());
        if (key == null) return "absent";
        try {
            var spki = SubjectPublicKeyInfo.getInstance(key.toASN1Primitive());
            var verifier = new JcaContentVerifierProviderBuilder().setProvider("BC").build(spki);
            return holder.isAlternativeSignatureValid(verifier) ? "valid" : "invalid";
        } catch (Exception error) {
            return "invalid";
        }
    }

    public static void main(String[] arguments) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        Date at = new Date(Long.parseLong(arguments[1]) * 1000);
        TreeSet<Path> directories = new TreeSet<>();
        try (DirectoryStream<Path> stream = Files.newDirectoryStream(Path.of(arguments[0]))) {
            stream.forEach(directories::add);
        }
        for (Path directory : directories) {
            List<String> found = new ArrayList<>();
            String error;
            try {
                List<X509Certificate> chain = read(directory.resolve("chain.pem"));
                X509Certificate anchor = read(directory.resolve("anchor.pem")).get(0);
                error = pkix(chain, anchor, at);
                for (int i = 0; i < chain.size(); i++) {
                    X509Certificate issuer = i + 1 < chain.size() ? chain.get(i + 1) : anchor;
                    found.add('"' + alternative(chain.get(i), issuer) + '"');
                }
                found.add('"' + alternative(anchor, anchor) + '"');
            } catch (Exception unreadable) {
                error = unreadable.toString();
            }
            String quoted = error.replace("\\", "").replace("\"", "'").replace("\n", " ");
            System.out.printf(
                "{\"event\": \"verified\", \"case\": \"%s\", \"error\": \"%s\", \"alternative\": [%s]}%n",
                directory.getFileName(), quoted, String.join(", ", found));
        }
    }
}
